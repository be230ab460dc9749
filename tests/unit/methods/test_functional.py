"""Every loss against an independent float64 re-implementation in NumPy, and at the extremes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from skdtune.methods.drg.formulas import auxiliary_cross_entropy, drg_loss
from skdtune.methods.dsr.formulas import dsr_loss, ranked
from skdtune.methods.functional import (
    Pairing,
    Teacher,
    cross_entropy,
    distillation_kl,
    distillation_kl_to_probs,
)
from skdtune.methods.label_smoothing.formulas import label_smoothing_loss

Array = NDArray[np.float64]
Loss = Callable[[Tensor], Tensor]

TEMPERATURES = (0.5, 1.0, 4.0, 10.0)
BATCH, CLASSES = 6, 11


def softmax(rows: Array) -> Array:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def divergence(target: Array, student: Array, temperature: float) -> float:
    total = 0.0
    for row, probs in zip(target, softmax(student / temperature), strict=True):
        total += sum(q * np.log(q / p) for q, p in zip(row, probs, strict=True) if q > 0)
    return temperature**2 * total / len(target)


def logits(seed: int = 0, num_rows: int = BATCH, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num_rows, CLASSES, generator=generator, dtype=torch.float64)


def labels(num_rows: int = BATCH) -> Tensor:
    return torch.arange(num_rows) * 3 % CLASSES


def assert_equal(received: Tensor, expected: float) -> None:
    assert received.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_cross_entropy() -> None:
    probs = softmax(logits().numpy())
    expected = -np.mean([np.log(row[y]) for row, y in zip(probs, labels(), strict=True)])
    assert_equal(cross_entropy(logits(), labels()), expected)


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.5])
def test_label_smoothing(smoothing: float) -> None:
    target = np.full((BATCH, CLASSES), smoothing / (CLASSES - 1))
    target[np.arange(BATCH), labels().numpy()] = 1 - smoothing
    expected = -np.sum(target * np.log(softmax(logits().numpy()))) / BATCH
    received = label_smoothing_loss(logits(), labels(), smoothing)
    assert_equal(received, expected)
    in_torch = smoothing * CLASSES / (CLASSES - 1)
    assert_equal(received, F.cross_entropy(logits(), labels(), label_smoothing=in_torch).item())


def test_label_smoothing_of_nothing_is_cross_entropy() -> None:
    assert torch.equal(
        label_smoothing_loss(logits(), labels(), 0.0), cross_entropy(logits(), labels())
    )


def test_label_smoothing_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, received 1"):
        label_smoothing_loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), 0.1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_distillation_kl(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    target = softmax(teacher.numpy() / temperature)
    expected = divergence(target, student.numpy(), temperature)
    assert_equal(distillation_kl(student, teacher, temperature), expected)
    assert_equal(
        distillation_kl_to_probs(student, torch.from_numpy(target), temperature), expected
    )


def test_zero_probabilities_count_as_nothing() -> None:
    target = F.one_hot(labels(), CLASSES).double()
    expected = divergence(target.numpy(), logits().numpy(), 2.0)
    assert_equal(distillation_kl_to_probs(logits(), target, 2.0), expected)
    assert_equal(
        distillation_kl_to_probs(logits(), target, 1.0), cross_entropy(logits(), labels()).item()
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("teacher", ["mean_probs", "mean_logits"])
@pytest.mark.parametrize("num_stages", [1, 2, 3])
def test_drg(temperature: float, teacher: Teacher, num_stages: int) -> None:
    student, stages = logits(0), [logits(1 + stage) for stage in range(num_stages)]
    if teacher == "mean_probs":
        target = np.mean([softmax(stage.numpy() / temperature) for stage in stages], axis=0)
    else:
        target = softmax(np.mean([stage.numpy() for stage in stages], axis=0) / temperature)
    expected = divergence(target, student.numpy(), temperature)
    assert_equal(drg_loss(student, stages, temperature, teacher), expected)


def test_teachers_agree_on_one_stage_and_differ_on_two() -> None:
    def loss(num_stages: int, teacher: Teacher) -> Tensor:
        return drg_loss(logits(), [logits(1), logits(2)][:num_stages], 4.0, teacher)

    assert torch.equal(loss(1, "mean_probs"), loss(1, "mean_logits"))
    assert not torch.isclose(loss(2, "mean_probs"), loss(2, "mean_logits"), rtol=1e-3)


def test_auxiliary_cross_entropy_is_a_mean_over_stages() -> None:
    stages = [logits(1), logits(2)]
    expected = sum(cross_entropy(stage, labels()).item() for stage in stages) / 2
    assert_equal(auxiliary_cross_entropy(stages, labels()), expected)


@pytest.mark.parametrize("loss", [drg_loss, auxiliary_cross_entropy])
def test_no_auxiliary_classifier_is_an_error(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="at least one auxiliary classifier"):
        loss(*((logits(), [], 4.0) if loss is drg_loss else ([], labels())))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("pairing", ["row", "batch_mean"])
@pytest.mark.parametrize("num_previous", [BATCH, 4, 9])
def test_dsr(temperature: float, pairing: Pairing, num_previous: int) -> None:
    current, previous = logits(0), logits(1, num_previous)
    profiles = softmax(np.sort(previous.numpy(), axis=1) / temperature)
    if pairing == "row":
        target = np.stack([profiles[i % num_previous] for i in range(BATCH)])
    else:
        target = np.tile(profiles.mean(axis=0), (BATCH, 1))
    expected = divergence(target, np.sort(current.numpy(), axis=1), temperature)
    received = dsr_loss(ranked(current), ranked(previous), temperature, pairing)
    assert_equal(received, expected)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("pairing", ["row", "batch_mean"])
def test_the_gradient_of_dsr_lands_on_the_old_columns(
    temperature: float, pairing: Pairing
) -> None:
    current, previous = logits(0).requires_grad_(), logits(1)
    dsr_loss(ranked(current), ranked(previous), temperature, pairing).backward()
    target = softmax(np.sort(previous.numpy(), axis=1) / temperature)
    if pairing == "batch_mean":
        target = np.tile(target.mean(axis=0), (BATCH, 1))
    rows = current.detach().numpy()
    expected = np.empty_like(rows)
    for i, order in enumerate(np.argsort(rows, axis=1)):
        probs = softmax(rows[i : i + 1, order] / temperature)[0]
        expected[i, order] = temperature / BATCH * (probs - target[i])
    np.testing.assert_allclose(current.grad, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_of_drg_is_the_formula(temperature: float) -> None:
    student, auxiliary = logits(0).requires_grad_(), logits(1).requires_grad_()
    weight = 0.2
    loss = cross_entropy(student, labels()) + weight * drg_loss(student, [auxiliary], temperature)
    loss.backward()
    with torch.no_grad():
        onehot = F.one_hot(labels(), CLASSES)
        soft = (student / temperature).softmax(-1) - (auxiliary / temperature).softmax(-1)
        expected = (student.softmax(-1) - onehot + weight * temperature * soft) / BATCH
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=1e-10)
    assert auxiliary.grad is None


@pytest.mark.parametrize("teacher", ["mean_probs", "mean_logits"])
@pytest.mark.parametrize("num_stages", [1, 2])
def test_auxiliary_classifiers_learn_nothing_from_the_divergence(
    teacher: Teacher, num_stages: int
) -> None:
    stages = [logits(1 + stage).requires_grad_() for stage in range(num_stages)]
    drg_loss(logits().requires_grad_(), stages, 4.0, teacher).backward()
    assert all(stage.grad is None for stage in stages)


@pytest.mark.parametrize("pairing", ["row", "batch_mean"])
@pytest.mark.parametrize("num_previous", [BATCH, 4])
def test_the_batch_before_gets_no_gradient(pairing: Pairing, num_previous: int) -> None:
    previous = logits(1, num_previous).requires_grad_()
    dsr_loss(ranked(logits().requires_grad_()), ranked(previous), 4.0, pairing).backward()
    assert previous.grad is None


def test_row_pairing_equals_batch_mean_in_expectation() -> None:
    def gradient(previous: Tensor, pairing: Pairing) -> Tensor:
        current = logits(0).requires_grad_()
        dsr_loss(ranked(current), ranked(previous), 3.0, pairing).backward()
        assert current.grad is not None
        return current.grad

    previous = logits(1)
    # Over the cyclic shifts every row meets every other one equally often.
    shifted = [gradient(previous.roll(shift, dims=0), "row") for shift in range(BATCH)]
    torch.testing.assert_close(
        torch.stack(shifted).mean(dim=0), gradient(previous, "batch_mean"), rtol=0, atol=1e-14
    )


LOSSES: dict[str, Loss] = {
    "cross_entropy": lambda z: cross_entropy(z, labels()),
    "label_smoothing": lambda z: label_smoothing_loss(z, labels(), 0.1),
    "kl": lambda z: distillation_kl(z, z.flip(1), 4.0),
    "kl_cold": lambda z: distillation_kl(z, z.flip(1), 0.1),
    "kl_to_probs": lambda z: distillation_kl_to_probs(z, z.flip(1).softmax(-1), 4.0),
    "drg_probs": lambda z: drg_loss(z, [z.flip(1), z.flip(0)], 4.0, "mean_probs"),
    "drg_logits": lambda z: drg_loss(z, [z.flip(1), z.flip(0)], 4.0, "mean_logits"),
    "auxiliary": lambda z: auxiliary_cross_entropy([z, -z], labels()),
    "dsr_row": lambda z: dsr_loss(ranked(z), ranked(-2 * z), 4.0, "row"),
    "dsr_mean": lambda z: dsr_loss(ranked(z), ranked(-2 * z), 4.0, "batch_mean"),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [200.0, 1e4, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_are_finite(name: str, size: float, dtype: torch.dtype) -> None:
    extreme = (logits(4).sign() * size).to(dtype).requires_grad_()
    loss = LOSSES[name](extreme)
    loss.backward()
    assert loss.isfinite()
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_give_float32_losses(name: str, dtype: torch.dtype) -> None:
    low = logits().to(dtype)
    loss = LOSSES[name](low)
    assert loss.dtype == torch.float32
    assert loss.ndim == 0
    if name != "kl_to_probs":  # its target is made by the caller, here in low precision
        assert torch.equal(loss, LOSSES[name](low.float()))


@pytest.mark.parametrize("name", LOSSES)
def test_single_and_double_precision_agree(name: str) -> None:
    double = LOSSES[name](logits())
    assert double.dtype == torch.float64
    assert LOSSES[name](logits().float()).item() == pytest.approx(double.item(), rel=2e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_nan_logits_are_not_hidden(name: str) -> None:
    broken = logits()
    broken[2, 3] = torch.nan
    assert LOSSES[name](broken).isnan()


def test_gradients_agree_with_finite_differences() -> None:
    for name, loss in LOSSES.items():
        if name.startswith(("kl", "drg", "dsr")):
            continue  # there the target of these examples moves with the student
        assert torch.autograd.gradcheck(loss, logits().requires_grad_())
