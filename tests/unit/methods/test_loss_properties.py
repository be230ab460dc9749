from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from skdtune.methods.drg.formulas import drg_loss
from skdtune.methods.dsr.formulas import dsr_loss, ranked
from skdtune.methods.functional import (
    Pairing,
    Teacher,
    cross_entropy,
    distillation_kl,
    distillation_kl_to_probs,
)
from skdtune.methods.label_smoothing.formulas import label_smoothing_loss

examples = settings(max_examples=60, deadline=None)
temperatures = st.floats(0.3, 20)
shapes = st.tuples(st.integers(1, 5), st.integers(2, 7))


@st.composite
def batches(draw: st.DrawFn, *, num: int = 2, limit: float = 50) -> list[Tensor]:
    """Several batches of logits of one shape."""
    shape = draw(shapes)
    numbers = st.floats(-limit, limit, width=64)
    return [torch.from_numpy(draw(arrays("float64", shape, elements=numbers))) for _ in range(num)]


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
    assert dsr_loss(ranked(student), ranked(student), temperature) == 0
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
@given(batches(), temperatures, st.sampled_from(["row", "batch_mean"]), st.integers(0, 999))
def test_dsr_ignores_which_class_stands_where(
    rows: list[Tensor], temperature: float, pairing: Pairing, seed: int
) -> None:
    current, previous = rows
    generator = torch.Generator().manual_seed(seed)

    def mixed(logits_BK: Tensor) -> Tensor:
        order_BK = torch.rand(logits_BK.shape, generator=generator).argsort(dim=-1)
        return logits_BK.gather(-1, order_BK)

    expected = dsr_loss(ranked(current), ranked(previous), temperature, pairing)
    received = dsr_loss(ranked(mixed(current)), ranked(mixed(previous)), temperature, pairing)
    assert torch.equal(received, expected)


@examples
@given(batches(), temperatures, st.sampled_from(["row", "batch_mean"]))
def test_the_gradient_of_dsr_keeps_the_sum_of_each_row(
    rows: list[Tensor], temperature: float, pairing: Pairing
) -> None:
    current, previous = rows[0].requires_grad_(), rows[1]
    dsr_loss(ranked(current), ranked(previous), temperature, pairing).backward()
    assert current.grad is not None
    assert current.grad.isfinite().all()
    assert current.grad.sum(dim=-1).abs().max() < 1e-9


@examples
@given(batches(num=1))
def test_ranked_rows_ascend_and_keep_their_values(rows: list[Tensor]) -> None:
    (logits_BK,) = rows
    ranked_BK = ranked(logits_BK)
    assert (ranked_BK.diff(dim=-1) >= 0).all()
    assert [sorted(row) for row in logits_BK.tolist()] == ranked_BK.tolist()


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
@given(batches(num=1), st.floats(0, 1), st.data())
def test_label_smoothing_mixes_the_label_with_the_others(
    rows: list[Tensor], smoothing: float, data: st.DataObject
) -> None:
    (logits_BK,) = rows
    num_rows, num_classes = logits_BK.shape
    every = [torch.full((num_rows,), k) for k in range(num_classes)]
    label = data.draw(st.integers(0, num_classes - 1))
    losses = torch.stack([cross_entropy(logits_BK, labels_B) for labels_B in every])
    others = (losses.sum() - losses[label]) / (num_classes - 1)
    torch.testing.assert_close(
        label_smoothing_loss(logits_BK, every[label], smoothing),
        (1 - smoothing) * losses[label] + smoothing * others,
        rtol=1e-9,
        atol=1e-9,
    )


@examples
@given(batches(limit=1e4), temperatures)
def test_float32_losses_and_gradients_are_finite(rows: list[Tensor], temperature: float) -> None:
    student, teacher = rows[0].float().requires_grad_(), rows[1].float()
    loss = (
        distillation_kl(student, teacher, temperature)
        + drg_loss(student, [teacher, -teacher], temperature)
        + dsr_loss(ranked(student), ranked(teacher), temperature, "batch_mean")
    )
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
