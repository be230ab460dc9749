"""What every method promises, on every family of backbones."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from skdtune.config import (
    DrgConfig,
    DsrConfig,
    LabelSmoothingConfig,
    MethodConfig,
    ModelConfig,
)
from skdtune.methods.base import BuildContext, Step, Term
from skdtune.methods.registry import build_terms, required_stages
from skdtune.models.resnet import build_backbone
from skdtune.models.taps import TappedBackbone

NUM_CLASSES = 10
BATCH = 8

METHODS = {
    "cross_entropy": MethodConfig(),
    "label_smoothing": MethodConfig(label=LabelSmoothingConfig()),
    "drg": MethodConfig(drg=DrgConfig()),
    "drg_two_stages": MethodConfig(drg=DrgConfig(stages=(1, 2), align_corners="published")),
    "drg_mean_logits": MethodConfig(drg=DrgConfig(stages=(1, 2), teacher="mean_logits")),
    "dsr": MethodConfig(dsr=DsrConfig()),
    "dsr_batch_mean": MethodConfig(dsr=DsrConfig(pairing="batch_mean")),
    "drg_dsr": MethodConfig(drg=DrgConfig(), dsr=DsrConfig()),
    "smooth_drg_dsr": MethodConfig(
        label=LabelSmoothingConfig(), drg=DrgConfig(stages=(1,)), dsr=DsrConfig()
    ),
}

BACKBONES = {
    "resnet8": (ModelConfig(name="resnet8", width=8), (1, 8, 8)),
    "resnet20": (ModelConfig(name="resnet20", width=8), (3, 16, 16)),
    "resnet18": (ModelConfig(name="resnet18", width=8), (3, 32, 32)),
}

every_method = pytest.mark.parametrize("method", METHODS)
every_backbone = pytest.mark.parametrize("backbone", BACKBONES)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Training:
    """The least a trainer has to do: no method is known by name."""

    network: TappedBackbone
    terms: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    image_shape: tuple[int, int, int]

    def each_term(self) -> list[Term]:
        return [term for term in self.terms.values() if isinstance(term, Term)]

    def losses(self, index: int, *, bfloat16: bool = False) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(100 + index)
        images_BCHW = torch.randn(BATCH, *self.image_shape, generator=generator)
        labels_B = torch.randint(NUM_CLASSES, (BATCH,), generator=generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits_BK, features = self.network(images_BCHW, required_stages(self.terms))
            step = Step(labels_B, logits_BK, features, epoch=0)
            losses: dict[str, Tensor] = {}
            for term in self.each_term():
                losses |= term(step)
        return losses

    def backward(self, index: int, *, bfloat16: bool = False) -> dict[str, Tensor]:
        self.optimizer.zero_grad()
        losses = self.losses(index, bfloat16=bfloat16)
        sum(losses.values(), torch.zeros(())).backward()
        return losses

    def steps(self, indices: range, *, bfloat16: bool = False) -> list[float]:
        totals = []
        for index in indices:
            losses = self.backward(index, bfloat16=bfloat16)
            self.optimizer.step()
            totals.append(sum(losses.values(), torch.zeros(())).item())
        return totals

    def state(self) -> bytes:
        parts = (self.network, self.terms, self.optimizer)
        buffer = io.BytesIO()
        torch.save([part.state_dict() for part in parts], buffer)
        return buffer.getvalue()

    def restore(self, state: bytes) -> None:
        loaded = torch.load(io.BytesIO(state), weights_only=True)
        for part, values in zip((self.network, self.terms, self.optimizer), loaded, strict=True):
            part.load_state_dict(values)


def start(method: MethodConfig | str, backbone: str, *, seed: int = 0) -> Training:
    config, image_shape = BACKBONES[backbone]
    torch.manual_seed(seed)
    network_body = build_backbone(config, in_channels=image_shape[0], num_classes=NUM_CLASSES)
    network = TappedBackbone(network_body, network_body.stages)
    context = BuildContext(network.stage_shapes(image_shape), NUM_CLASSES)
    terms = build_terms(METHODS[method] if isinstance(method, str) else method, context)
    parameters = [*network.parameters(), *terms.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    training = Training(network, terms, optimizer, image_shape)
    for term in training.each_term():
        term.start_epoch(0)
    return training


@every_method
@every_backbone
def test_losses_and_gradients_are_finite(method: str, backbone: str) -> None:
    training = start(method, backbone)
    for index in range(2):
        losses = training.backward(index)
        assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
        for part in (training.network, training.terms):
            for name, parameter in part.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name


@every_method
@every_backbone
def test_loss_names_stay_the_same(method: str, backbone: str) -> None:
    training = start(method, backbone)
    first, second = training.losses(0), training.losses(1)
    assert list(first) == list(second)
    assert {loss.dtype for loss in (*first.values(), *second.values())} == {torch.float32}
    assert all(loss > 0 for loss in second.values())


@every_method
def test_training_lowers_the_label_loss(method: str) -> None:
    training = start(method, "resnet8")
    totals = [training.steps(range(1))[0] for _ in range(12)]
    assert totals[-1] < totals[0] / 2


@every_method
@every_backbone
def test_same_seed_same_numbers(method: str, backbone: str) -> None:
    first = start(method, backbone, seed=5).steps(range(2))
    assert first == start(method, backbone, seed=5).steps(range(2))
    assert first != start(method, backbone, seed=6).steps(range(2))


@every_method
@every_backbone
def test_a_resumed_training_goes_on_bit_by_bit(method: str, backbone: str) -> None:
    undisturbed = start(method, backbone)
    undisturbed.steps(range(2))
    state = undisturbed.state()
    expected = undisturbed.steps(range(2, 4))
    resumed = start(method, backbone, seed=99)
    resumed.restore(state)
    assert resumed.steps(range(2, 4)) == expected
    for mine, other in zip(
        resumed.network.state_dict().values(),
        undisturbed.network.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(mine, other)


@every_method
@every_backbone
def test_a_new_epoch_needs_no_memory(method: str, backbone: str) -> None:
    training = start(method, backbone)
    training.steps(range(2))
    twin = start(method, backbone)
    twin.network.load_state_dict(training.network.state_dict())
    for mine, other in zip(twin.terms.parameters(), training.terms.parameters(), strict=True):
        mine.data.copy_(other.data)
    for one in (training, twin):
        for term in one.each_term():
            term.start_epoch(1)
    first, second = training.losses(2), twin.losses(2)
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_backbone
@pytest.mark.parametrize("label", ["cross_entropy", "label_smoothing"])
def test_terms_of_weight_zero_leave_the_baseline_as_it_is(label: str, backbone: str) -> None:
    baseline = METHODS[label]
    nothing = baseline.model_copy(
        update={
            "drg": DrgConfig(weight=0.0, aux_ce_weight=0.0, stages=(1, 2)),
            "dsr": DsrConfig(weight=0.0),
        }
    )
    plain, switched_off = start(baseline, backbone), start(nothing, backbone)
    assert plain.steps(range(3)) == switched_off.steps(range(3))
    for mine, other in zip(
        plain.network.parameters(), switched_off.network.parameters(), strict=True
    ):
        assert torch.equal(mine, other)


@every_method
@every_backbone
def test_bfloat16_is_close_to_float32(method: str, backbone: str) -> None:
    single, low = start(method, backbone), start(method, backbone)
    for index in range(2):
        expected, received = single.losses(index), low.losses(index, bfloat16=True)
        assert list(received) == list(expected)
        for name, loss in received.items():
            assert loss.dtype == torch.float32
            torch.testing.assert_close(loss, expected[name], rtol=0.08, atol=0.02)


@every_method
def test_gradients_in_bfloat16_are_finite(method: str) -> None:
    training = start(method, "resnet8")
    totals = training.steps(range(3), bfloat16=True)
    assert all(torch.tensor(totals).isfinite())
    assert all(
        parameter.dtype == torch.float32
        and parameter.grad is not None
        and bool(parameter.grad.isfinite().all())
        for parameter in (*training.network.parameters(), *training.terms.parameters())
    )
