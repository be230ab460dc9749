from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skdtune.data.batches import Batch, DeviceImages, val_batches
from skdtune.data.images import image_set
from skdtune.training.evaluation import evaluate

CPU = torch.device("cpu")


@pytest.fixture
def images() -> DeviceImages:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (11, 4, 4, 1), dtype=np.uint8)
    chosen = image_set(pixels, np.arange(11) % 3, ("a", "b", "c"))
    ones = np.ones(1, dtype=np.float32)
    return DeviceImages(chosen, ones * 0.5, ones * 0.25, CPU)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def one_by_one(network: nn.Module, images: DeviceImages) -> tuple[float, float]:
    """Score as one would by hand: image by image, in plain Python numbers."""
    correct, losses = 0, []
    for batch in val_batches(images, batch_size=1):
        logits: list[float] = network(batch.images_BCHW).double()[0].tolist()
        label = int(batch.labels_B)
        correct += logits.index(max(logits)) == label
        losses.append(math.log(sum(map(math.exp, logits))) - logits[label])
    return correct / len(images), sum(losses) / len(images)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 11, 100])
def test_the_scores_are_those_of_a_count_image_by_image(
    batch_size: int, images: DeviceImages, network: nn.Module
) -> None:
    found = evaluate(network, val_batches(images, batch_size), None, CPU)
    accuracy, loss = one_by_one(network, images)
    assert 0 < accuracy < 1
    assert found.accuracy == accuracy
    assert found.loss == pytest.approx(loss, rel=1e-5)


def test_the_network_is_scored_in_evaluation_mode_and_without_gradients(
    images: DeviceImages,
) -> None:
    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(1)
            self.seen: list[tuple[bool, bool]] = []

        def forward(self, images_BCHW: Tensor) -> Tensor:
            mapped: Tensor = self.norm(images_BCHW)
            self.seen.append((self.training, mapped.requires_grad))
            return mapped.flatten(1)[:, :3]

    network = Spy().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate(network, val_batches(images, 4), None, CPU)
    assert network.seen == [(False, False)] * 3
    assert not network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_autocast_reaches_the_network_but_not_the_loss(
    images: DeviceImages, network: nn.Module
) -> None:
    seen: list[torch.dtype] = []
    network.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    found = evaluate(network, val_batches(images, 4), torch.bfloat16, CPU)
    assert set(seen) == {torch.bfloat16}
    exact = evaluate(network, val_batches(images, 4), None, CPU)
    assert found.loss == pytest.approx(exact.loss, rel=0.05)


def test_a_last_batch_of_one_counts_as_one_image() -> None:
    logits = [torch.tensor([[5.0, 0.0]] * 4), torch.tensor([[0.0, 5.0]])]
    batches = [
        Batch(z, torch.zeros(len(z), dtype=torch.int64), torch.arange(len(z))) for z in logits
    ]
    assert evaluate(nn.Identity(), batches, None, CPU).accuracy == 4 / 5
