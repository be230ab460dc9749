"""The formulas of DSR against plain loops, and at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formula_cases import (
    BATCH,
    TEMPERATURES,
    Loss,
    LossPromises,
    assert_equal,
    batches,
    divergence,
    examples,
    logits,
    require_finite_gradient,
    softmax,
    temperatures,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skdtune.methods.dsr.formulas import dsr_loss, ranked
from skdtune.methods.functional import Pairing


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
    "row": lambda z: dsr_loss(ranked(z), ranked(-2 * z), 4.0, "row"),
    "batch_mean": lambda z: dsr_loss(ranked(z), ranked(-2 * z), 4.0, "batch_mean"),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


@examples
@given(batches(num=1), temperatures)
def test_a_divergence_from_itself_is_zero(rows: list[Tensor], temperature: float) -> None:
    (student,) = rows
    assert dsr_loss(ranked(student), ranked(student), temperature) == 0


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
@given(batches(limit=1e4), temperatures)
def test_float32_losses_and_gradients_are_finite(rows: list[Tensor], temperature: float) -> None:
    student, previous = rows[0].float().requires_grad_(), rows[1].float()
    loss = dsr_loss(ranked(student), ranked(previous), temperature, "batch_mean")
    require_finite_gradient(loss, student)
