"""The formulas of DRG against plain loops, and at the extremes."""

from __future__ import annotations

from collections.abc import Callable

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
    assert_equal,
    batches,
    divergence,
    examples,
    labels,
    logits,
    require_finite_gradient,
    softmax,
    temperatures,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skdtune.methods.drg.formulas import auxiliary_cross_entropy, drg_loss
from skdtune.methods.functional import Teacher, cross_entropy, distillation_kl


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


LOSSES: dict[str, Loss] = {
    "mean_probs": lambda z: drg_loss(z, [z.flip(1), z.flip(0)], 4.0, "mean_probs"),
    "mean_logits": lambda z: drg_loss(z, [z.flip(1), z.flip(0)], 4.0, "mean_logits"),
    "auxiliary": lambda z: auxiliary_cross_entropy([z, -z], labels()),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


def test_the_auxiliary_gradient_agrees_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(LOSSES["auxiliary"], logits().requires_grad_())


@examples
@given(batches(), temperatures, st.integers(1, 3), st.sampled_from(["mean_probs", "mean_logits"]))
def test_equal_stages_teach_like_one(
    rows: list[Tensor], temperature: float, num_stages: int, teacher: Teacher
) -> None:
    student, auxiliary = rows
    torch.testing.assert_close(
        drg_loss(student, [auxiliary] * num_stages, temperature, teacher),
        distillation_kl(student, auxiliary, temperature),
        rtol=1e-9,
        atol=1e-9,
    )


@examples
@given(batches(num=3), temperatures)
def test_mean_probs_has_the_mean_gradient_of_its_stages(
    rows: list[Tensor], temperature: float
) -> None:
    def gradient(stages: list[Tensor]) -> Tensor:
        student = rows[0].clone().requires_grad_()
        drg_loss(student, stages, temperature, "mean_probs").backward()
        assert student.grad is not None
        return student.grad

    single = (gradient(rows[1:2]) + gradient(rows[2:])) / 2
    torch.testing.assert_close(gradient(rows[1:]), single, rtol=0, atol=1e-11)


@examples
@given(batches(limit=1e4), temperatures)
def test_float32_losses_and_gradients_are_finite(rows: list[Tensor], temperature: float) -> None:
    student, teacher = rows[0].float().requires_grad_(), rows[1].float()
    require_finite_gradient(drg_loss(student, [teacher, -teacher], temperature), student)
