"""The functions that methods share, against plain loops in float64 NumPy, and at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formula_cases import (
    BATCH,
    CLASSES,
    TEMPERATURES,
    Loss,
    LossPromises,
    Taught,
    TeachingPromises,
    assert_equal,
    batches,
    divergence,
    examples,
    full,
    labels,
    log_softmax,
    logits,
    require_finite_gradient,
    softmax,
    temperatures,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skdtune.methods.functional import (
    cross_entropy,
    distillation_kl,
    distillation_kl_to_probs,
    soft_cross_entropy,
)


def test_cross_entropy() -> None:
    probs = softmax(logits().numpy())
    expected = -np.mean([np.log(row[y]) for row, y in zip(probs, labels(), strict=True)])
    assert_equal(cross_entropy(logits(), labels()), expected)


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
def test_soft_cross_entropy(temperature: float) -> None:
    student, teacher = logits(0).numpy(), logits(1).numpy()
    total = 0.0
    for i in range(BATCH):
        target = softmax(teacher[i] / temperature)
        for j in range(CLASSES):
            total -= target[j] * log_softmax(student[i] / temperature)[j]
    received = soft_cross_entropy(logits(0), logits(1), temperature)
    assert_equal(received, temperature**2 * total / BATCH)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_cross_entropy_has_the_gradient_of_the_divergence(temperature: float) -> None:
    gradients = []
    for loss in (soft_cross_entropy, distillation_kl):
        student = logits(0).requires_grad_()
        loss(student, logits(1), temperature).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


LOSSES: dict[str, Loss] = {
    "cross_entropy": lambda z: cross_entropy(z, labels()),
    "kl": lambda z: distillation_kl(z, z.flip(1), 4.0),
    "kl_cold": lambda z: distillation_kl(z, z.flip(1), 0.1),
    "kl_to_probs": lambda z: distillation_kl_to_probs(z, full(z).flip(1).softmax(-1), 4.0),
    "soft_cross_entropy": lambda z: soft_cross_entropy(z, z.flip(1), 4.0),
    "soft_cross_entropy_cold": lambda z: soft_cross_entropy(z, z.flip(1), 0.1),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


TAUGHT: dict[str, tuple[Taught, Tensor, Tensor]] = {
    "soft_cross_entropy": (lambda z, t: soft_cross_entropy(z, t, 4.0), logits(0), logits(1))
}


@pytest.mark.parametrize(("loss", "student", "teacher"), TAUGHT.values(), ids=TAUGHT)
class TestTeaching(TeachingPromises):
    """Who learns, and what from."""


def test_the_gradient_of_cross_entropy_agrees_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(
        lambda z: cross_entropy(z, labels()), logits().requires_grad_()
    )


@examples
@given(batches(), temperatures)
def test_a_divergence_is_not_negative(rows: list[Tensor], temperature: float) -> None:
    student, teacher = rows
    slack = 1e-12 * temperature**2
    assert distillation_kl(student, teacher, temperature) >= -slack
    target = (teacher / temperature).softmax(-1)
    assert distillation_kl_to_probs(student, target, temperature) >= -slack


@examples
@given(batches(num=1), temperatures, st.floats(-10, 10))
def test_a_divergence_from_itself_is_zero(
    rows: list[Tensor], temperature: float, shift: float
) -> None:
    (student,) = rows
    assert distillation_kl(student, student.clone(), temperature) == 0
    shifted = distillation_kl(student, student + shift, temperature)
    assert shifted.item() == pytest.approx(0, abs=1e-10)


@examples
@given(batches(), temperatures)
def test_divergences_from_logits_and_probabilities_agree(
    rows: list[Tensor], temperature: float
) -> None:
    student, teacher = rows
    target = (teacher / temperature).softmax(-1)
    torch.testing.assert_close(
        distillation_kl_to_probs(student, target, temperature),
        distillation_kl(student, teacher, temperature),
        rtol=1e-9,
        atol=1e-9,
    )


@examples
@given(batches(), temperatures)
def test_soft_cross_entropy_exceeds_the_divergence_by_the_entropy(
    rows: list[Tensor], temperature: float
) -> None:
    student, teacher = rows
    entropy = torch.special.entr((teacher / temperature).softmax(-1)).sum(dim=-1).mean()
    torch.testing.assert_close(
        soft_cross_entropy(student, teacher, temperature),
        distillation_kl(student, teacher, temperature) + temperature**2 * entropy,
        rtol=1e-9,
        atol=1e-9,
    )


@examples
@given(batches(), temperatures)
def test_soft_cross_entropy_is_not_negative(rows: list[Tensor], temperature: float) -> None:
    assert soft_cross_entropy(*rows, temperature) >= -1e-12 * temperature**2


@examples
@given(batches(limit=1e4), temperatures)
def test_float32_losses_and_gradients_are_finite(rows: list[Tensor], temperature: float) -> None:
    student, teacher = rows[0].float().requires_grad_(), rows[1].float()
    loss = (
        distillation_kl(student, teacher, temperature)
        + soft_cross_entropy(student, teacher, temperature)
        + distillation_kl_to_probs(student, teacher.softmax(-1), temperature)
    )
    require_finite_gradient(loss, student)
