"""The formula of PS-KD against plain loops, and at the extremes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from formula_cases import (
    BATCH,
    CLASSES,
    Loss,
    LossPromises,
    Taught,
    TeachingPromises,
    assert_equal,
    batches,
    examples,
    full,
    labels,
    log_softmax,
    logits,
    require_finite_gradient,
    some_labels,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skdtune.methods.functional import cross_entropy
from skdtune.methods.ps_kd.formulas import ps_kd_loss


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.8, 1.0])
def test_ps_kd(alpha: float) -> None:
    rows, memory = logits(0).numpy(), logits(1).softmax(-1).numpy()
    total = 0.0
    for i in range(BATCH):
        for j in range(CLASSES):
            target = (1 - alpha) * (j == labels()[i].item()) + alpha * memory[i, j]
            total -= target * log_softmax(rows[i])[j]
    received = ps_kd_loss(logits(0), labels(), torch.from_numpy(memory), alpha)
    assert_equal(received, total / BATCH)


def test_ps_kd_without_memory_is_cross_entropy_to_the_bit() -> None:
    rows, memory = logits(0).float(), logits(1).float().softmax(-1)
    assert torch.equal(ps_kd_loss(rows, labels(), memory, 0.0), cross_entropy(rows, labels()))


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_ps_kd_that_remembers_the_labels_is_cross_entropy(alpha: float) -> None:
    memory = F.one_hot(labels(), CLASSES).float()
    received = ps_kd_loss(logits(), labels(), memory, alpha)
    assert_equal(received, cross_entropy(logits(), labels()).item())


LOSSES: dict[str, Loss] = {
    "ps_kd": lambda z: ps_kd_loss(z, labels(), full(z).flip(1).softmax(-1), 0.8)
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


TAUGHT: dict[str, tuple[Taught, Tensor, Tensor]] = {
    "ps_kd": (lambda z, t: ps_kd_loss(z, labels(), t, 0.8), logits(0), logits(1).softmax(-1))
}


@pytest.mark.parametrize(("loss", "student", "teacher"), TAUGHT.values(), ids=TAUGHT)
class TestTeaching(TeachingPromises):
    """Who learns, and what from."""


@examples
@given(batches(), st.floats(0, 1), st.integers(0, 99))
def test_the_loss_is_not_negative(rows: list[Tensor], share: float, seed: int) -> None:
    student, memory = rows[0], rows[1].softmax(-1)
    assert ps_kd_loss(student, some_labels(student, seed), memory, share) >= -1e-12


@examples
@given(batches(num=1, limit=1e4))
def test_float32_losses_and_gradients_are_finite(rows: list[Tensor]) -> None:
    student, memory = rows[0].float().requires_grad_(), (-rows[0].float()).softmax(-1)
    require_finite_gradient(ps_kd_loss(student, some_labels(student), memory, 0.8), student)
