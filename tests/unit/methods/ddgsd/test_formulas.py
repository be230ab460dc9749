"""The mean discrepancy of DDGSD against plain loops, and at the extremes."""

from __future__ import annotations

import pytest
import torch
from formula_cases import BATCH, CHANNELS, Loss, LossPromises, assert_equal, features

from skdtune.methods.ddgsd.formulas import mean_discrepancy
from skdtune.methods.functional import Discrepancy


@pytest.mark.parametrize("kind", ["scalar", "linear"])
def test_mean_discrepancy(kind: Discrepancy) -> None:
    a, b = features(0).numpy(), features(1).numpy()
    if kind == "scalar":
        expected = float(sum(a.flatten()) / a.size - sum(b.flatten()) / b.size) ** 2
    else:
        means = [(sum(a[:, c]) - sum(b[:, c])) / BATCH for c in range(CHANNELS)]
        expected = sum(mean**2 for mean in means)
    assert_equal(mean_discrepancy(features(0), features(1), kind), expected)


@pytest.mark.parametrize("kind", ["scalar", "linear"])
def test_mean_discrepancy_pulls_both_views(kind: Discrepancy) -> None:
    a, b = features(0).requires_grad_(), features(1).requires_grad_()
    mean_discrepancy(a, b, kind).backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.abs().max() > 0
    torch.testing.assert_close(a.grad, -b.grad)


LOSSES: dict[str, Loss] = {
    "scalar": lambda z: mean_discrepancy(z, 2 * z.flip(1), "scalar"),
    "linear": lambda z: mean_discrepancy(z, z.flip(1), "linear"),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


@pytest.mark.parametrize("kind", ["scalar", "linear"])
def test_the_gradient_agrees_with_finite_differences(kind: Discrepancy) -> None:
    assert torch.autograd.gradcheck(
        lambda f: mean_discrepancy(f, features(1), kind), features().requires_grad_()
    )
