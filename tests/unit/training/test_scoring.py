from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skdtune.data.batches import Batch, DeviceImages, val_batches
from skdtune.data.images import image_set
from skdtune.training.scoring import PROFILE_SIZE, MeanProfile, measure, score

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
    found = measure(network, val_batches(images, batch_size), None, CPU)
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
    measure(network, val_batches(images, 4), None, CPU)
    assert network.seen == [(False, False)] * 3
    assert not network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_autocast_reaches_the_network_but_not_the_loss(
    images: DeviceImages, network: nn.Module
) -> None:
    seen: list[torch.dtype] = []
    network.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    found = measure(network, val_batches(images, 4), torch.bfloat16, CPU)
    assert set(seen) == {torch.bfloat16}
    exact = measure(network, val_batches(images, 4), None, CPU)
    assert found.loss == pytest.approx(exact.loss, rel=0.05)


def test_a_last_batch_of_one_counts_as_one_image() -> None:
    logits = [torch.tensor([[5.0, 0.0]] * 4), torch.tensor([[0.0, 5.0]])]
    batches = [
        Batch(z, torch.zeros(len(z), dtype=torch.int64), torch.arange(len(z))) for z in logits
    ]
    assert measure(nn.Identity(), batches, None, CPU).accuracy == 4 / 5


# Scores


def batches_of(logits_NK: Tensor, labels_N: Tensor, size: int) -> list[Batch]:
    """Batches whose images are logits already, for a network that passes them on."""
    rows_N = torch.arange(len(labels_N))
    return [Batch(logits_NK[rows_B], labels_N[rows_B], rows_B) for rows_B in rows_N.split(size)]


def calibration_error(probs: list[list[float]], labels: list[int], bins: int = 15) -> float:
    """Expected calibration error as its definition says it, in plain Python."""
    found: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probs, labels, strict=True):
        confidence = max(row)
        # Bins are open on the left; a confidence of exactly 0 cannot be.
        place = min(bins - 1, math.ceil(confidence * bins) - 1)
        found.setdefault(place, []).append((confidence, row.index(confidence) == label))
    return sum(
        abs(sum(right for _, right in one) - sum(confidence for confidence, _ in one))
        for one in found.values()
    ) / len(labels)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_accuracy_and_loss_of_a_score_are_those_of_an_evaluation(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(batch_size)
    logits_NK = torch.randn(300, 10, generator=generator) * 3
    labels_N = torch.randint(0, 10, (300,), generator=generator)
    network = nn.Identity()
    plain = measure(network, batches_of(logits_NK, labels_N, batch_size), None, CPU)
    scores = score(network, batches_of(logits_NK, labels_N, batch_size), None, CPU, 10)
    assert (scores.accuracy, scores.loss) == (plain.accuracy, plain.loss)
    assert scores.nll == plain.loss


@pytest.mark.parametrize("num_classes", [2, 5, 6, 10])
def test_the_scores_are_what_their_definitions_say(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    logits_NK = torch.randn(400, num_classes, generator=generator) * 2
    labels_N = torch.randint(0, num_classes, (400,), generator=generator)
    found = score(nn.Identity(), batches_of(logits_NK, labels_N, 90), None, CPU, num_classes)
    probs: list[list[float]] = logits_NK.softmax(1).tolist()
    labels: list[int] = labels_N.tolist()
    in_five = [
        label in sorted(range(num_classes), key=row.__getitem__)[-5:]
        for row, label in zip(probs, labels, strict=True)
    ]
    assert found.top5 == sum(in_five) / 400
    assert found.ece == pytest.approx(calibration_error(probs, labels), abs=1e-5)
    assert 0.05 < found.ece < 0.9
    right = [math.log(row[label]) for row, label in zip(probs, labels, strict=True)]
    assert found.nll == pytest.approx(-sum(right) / 400, rel=1e-5)
    means = [
        sum(column) / 400 for column in zip(*(sorted(row)[::-1] for row in probs), strict=True)
    ]
    assert found.profile == pytest.approx(means, rel=1e-5)
    assert sum(found.profile) == pytest.approx(1)
    if num_classes <= 5:
        assert found.top5 == 1


def test_logits_between_0_and_1_are_not_taken_for_probabilities() -> None:
    logits_NK = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    found = score(nn.Identity(), batches_of(logits_NK, torch.tensor([0, 1]), 2), None, CPU, 2)
    confidences = logits_NK.softmax(1).max(1).values
    assert found.ece == pytest.approx(1 - float(confidences.mean()))


def test_a_network_that_overflowed_is_scored_all_the_same() -> None:
    logits_NK = torch.full((6, 10), torch.nan)
    found = score(nn.Identity(), batches_of(logits_NK, torch.arange(6), 4), None, CPU, 10)
    assert math.isnan(found.nll)
    assert 0 <= found.ece <= 1


def test_a_profile_holds_the_hundred_largest_values() -> None:
    logits_NK = torch.randn(8, 300, generator=torch.Generator().manual_seed(0))
    profile = MeanProfile()
    for rows in logits_NK.split(3):
        profile.add(rows, torch.zeros(len(rows), dtype=torch.int64))
    expected = logits_NK.softmax(1).sort(1, descending=True).values.mean(0)[:PROFILE_SIZE]
    assert profile.values == pytest.approx(expected.tolist(), rel=1e-5)
    assert profile.values == sorted(profile.values, reverse=True)
    assert MeanProfile().values == []
