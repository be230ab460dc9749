"""The formula of TF-KD with a teacher against plain loops, and at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
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
    examples,
    log_softmax,
    logits,
    temperatures,
)
from hypothesis import given
from torch import Tensor

from skdtune.methods.tf_kd_self.formulas import tf_kd_self_loss


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_tf_kd_self(temperature: float) -> None:
    student, teacher = logits(0).numpy(), logits(1).numpy()
    total = 0.0
    for i in range(BATCH):
        log_target = log_softmax(teacher[i] / temperature)
        log_probs = log_softmax(student[i] / temperature)
        for j in range(CLASSES):
            total += np.exp(log_target[j]) * (log_target[j] - log_probs[j])
    expected = temperature**2 * total / (BATCH * CLASSES)
    assert_equal(tf_kd_self_loss(logits(0), logits(1), temperature), expected)


LOSSES: dict[str, Loss] = {"tf_kd_self": lambda z: tf_kd_self_loss(z, z.flip(1), 20.0)}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


TAUGHT: dict[str, tuple[Taught, Tensor, Tensor]] = {
    "tf_kd_self": (lambda z, t: tf_kd_self_loss(z, t, 4.0), logits(0), logits(1))
}


@pytest.mark.parametrize(("loss", "student", "teacher"), TAUGHT.values(), ids=TAUGHT)
class TestTeaching(TeachingPromises):
    """Who learns, and what from."""


@examples
@given(batches(), temperatures)
def test_the_loss_is_not_negative(rows: list[Tensor], temperature: float) -> None:
    assert tf_kd_self_loss(*rows, temperature) >= -1e-12 * temperature**2
