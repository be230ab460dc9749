"""The formula of TF-KD without a teacher against plain loops, and at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formula_cases import (
    BATCH,
    CLASSES,
    TEMPERATURES,
    Loss,
    LossPromises,
    assert_equal,
    batches,
    examples,
    labels,
    log_softmax,
    logits,
    require_finite_gradient,
    softmax,
    some_labels,
    temperatures,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skdtune.methods.tf_kd_reg.formulas import tf_kd_reg_loss


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("correct_prob", [0.5, 0.99, 1.0])
def test_tf_kd_reg(temperature: float, correct_prob: float) -> None:
    rows = logits().numpy()
    total = 0.0
    for i in range(BATCH):
        designed = np.full(CLASSES, (1 - correct_prob) / (CLASSES - 1))
        designed[labels()[i]] = correct_prob
        target = softmax(designed / temperature)
        for j in range(CLASSES):
            total += target[j] * (np.log(target[j]) - log_softmax(rows[i])[j])
    received = tf_kd_reg_loss(logits(), labels(), correct_prob, temperature)
    assert_equal(received, total / (BATCH * CLASSES))


def test_the_published_teacher_of_tf_kd_reg_is_nearly_uniform() -> None:
    # methods.md, 4.7: 0.0105 for the label and 0.0100 for the others, of 100 classes at T = 20.
    rows = torch.zeros(1, 100, dtype=torch.float64, requires_grad=True)
    tf_kd_reg_loss(rows, torch.tensor([3]), 0.99, 20.0).backward()
    assert rows.grad is not None
    target = 0.01 - 100 * rows.grad[0]  # the gradient is (softmax(z) - q) / (B K)
    assert target[3].item() == pytest.approx(0.0105, abs=5e-5)
    assert target[4].item() == pytest.approx(0.0100, abs=5e-5)


def test_one_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, received 1"):
        tf_kd_reg_loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), 0.99, 20.0)


LOSSES: dict[str, Loss] = {"tf_kd_reg": lambda z: tf_kd_reg_loss(z, labels(), 0.99, 20.0)}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


def test_the_gradient_agrees_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(LOSSES["tf_kd_reg"], logits().requires_grad_())


@examples
@given(batches(num=1), st.floats(0, 1), temperatures, st.integers(0, 99))
def test_the_loss_is_not_negative(
    rows: list[Tensor], correct_prob: float, temperature: float, seed: int
) -> None:
    (student,) = rows
    loss = tf_kd_reg_loss(student, some_labels(student, seed), correct_prob, temperature)
    assert loss >= -1e-12 * temperature**2


@examples
@given(batches(num=1, limit=1e4), temperatures)
def test_float32_losses_and_gradients_are_finite(rows: list[Tensor], temperature: float) -> None:
    student = rows[0].float().requires_grad_()
    loss = tf_kd_reg_loss(student, some_labels(student), 0.99, temperature)
    require_finite_gradient(loss, student)
