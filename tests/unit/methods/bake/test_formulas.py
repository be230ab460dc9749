"""The targets of BAKE against plain loops, and at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formula_cases import (
    Array,
    Loss,
    LossPromises,
    batches,
    examples,
    features,
    logits,
    require_finite_gradient,
    softmax,
    temperatures,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skdtune.methods.bake.formulas import bake_targets
from skdtune.methods.functional import distillation_kl_to_probs


def bake_by_loops(rows: Array, feature: Array, omega: float, temperature: float) -> Array:
    own = np.stack([softmax(row / temperature) for row in rows])
    unit = np.stack([vector / max(np.sqrt((vector**2).sum()), 1e-12) for vector in feature])
    weight = np.zeros((len(rows), len(rows)))
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        weight[i, others] = softmax(np.array([unit[i] @ unit[j] for j in others]))
    target = own
    for _ in range(2000):  # what the inverse is the limit of
        target = omega * weight @ target + (1 - omega) * own
    return target


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("omega", [0.1, 0.5, 0.9])
def test_bake(omega: float, temperature: float) -> None:
    expected = bake_by_loops(logits().numpy(), features().numpy(), omega, temperature)
    received = bake_targets(logits(), features(), omega, temperature)
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-13)


def test_bake_alone_or_with_omega_0_predicts_for_itself() -> None:
    own = (logits() / 4).softmax(-1)
    torch.testing.assert_close(bake_targets(logits(), features(), 0.0, 4.0), own)
    alone = bake_targets(logits()[:1], features()[:1], 0.9, 4.0)
    torch.testing.assert_close(alone, own[:1])
    assert distillation_kl_to_probs(logits(), own, 4.0).item() == pytest.approx(0, abs=1e-12)


def test_bake_listens_to_those_who_are_alike() -> None:
    feature = torch.tensor([[1.0, 0.0], [2.0, 0.1], [-1.0, 0.0]])
    rows = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    target = bake_targets(rows, feature, 0.5, 1.0)
    assert target[0, 0] > target[0, 1] + 0.2


def test_autocast_changes_no_target() -> None:
    rows, feature = logits().float(), features().float()
    plain = bake_targets(rows, feature, 0.9, 4.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        received = bake_targets(rows, feature, 0.9, 4.0)
    assert torch.equal(plain, received)


def test_targets_have_no_gradient() -> None:
    rows, feature = logits().requires_grad_(), features().requires_grad_()
    assert not bake_targets(rows, feature, 0.5, 4.0).requires_grad


def test_low_precision_gives_float32_targets() -> None:
    low, feature = logits().bfloat16(), features().bfloat16()
    target = bake_targets(low, feature, 0.5, 4.0)
    assert target.dtype == torch.float32
    assert target.isfinite().all()
    assert torch.equal(target, bake_targets(low.float(), feature, 0.5, 4.0))


def bake_loss(z: Tensor) -> Tensor:
    return distillation_kl_to_probs(z, bake_targets(z, z, 0.9, 4.0), 4.0)


LOSSES: dict[str, Loss] = {"bake": bake_loss}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


@examples
@given(batches(), st.floats(0, 0.99), temperatures)
def test_targets_of_bake_are_probabilities(
    rows: list[Tensor], omega: float, temperature: float
) -> None:
    logits_BK, features_BC = rows
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-6)):
        target = bake_targets(logits_BK.to(dtype), features_BC.to(dtype), omega, temperature)
        assert target.dtype == dtype
        assert (target >= 0).all()
        assert (target.sum(dim=-1) - 1).abs().max() < tolerance


@examples
@given(batches(), st.floats(0, 0.95), st.integers(0, 99))
def test_bake_knows_no_order(rows: list[Tensor], omega: float, seed: int) -> None:
    logits_BK, features_BC = rows
    generator = torch.Generator().manual_seed(seed)
    images = torch.randperm(len(logits_BK), generator=generator)
    classes = torch.randperm(logits_BK.shape[1], generator=generator)
    expected = bake_targets(logits_BK, features_BC, omega, 4.0)[images][:, classes]
    received = bake_targets(logits_BK[images][:, classes], features_BC[images], omega, 4.0)
    torch.testing.assert_close(received, expected, rtol=0, atol=1e-12)


@examples
@given(batches(), st.floats(0, 1e-9), temperatures)
def test_as_omega_goes_to_0_bake_predicts_for_itself(
    rows: list[Tensor], omega: float, temperature: float
) -> None:
    logits_BK, features_BC = rows
    received = bake_targets(logits_BK, features_BC, omega, temperature)
    own = (logits_BK / temperature).softmax(-1)
    torch.testing.assert_close(received, own, rtol=0, atol=1e-8)


@examples
@given(batches(num=1, limit=1e4), temperatures)
def test_float32_losses_and_gradients_are_finite(rows: list[Tensor], temperature: float) -> None:
    student = rows[0].float().requires_grad_()
    target = bake_targets(student, student, 0.9, temperature)
    require_finite_gradient(distillation_kl_to_probs(student, target, temperature), student)
