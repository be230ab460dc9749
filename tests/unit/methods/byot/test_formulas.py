"""The feature loss of BYOT against plain loops, and at the extremes."""

from __future__ import annotations

import pytest
import torch
from formula_cases import (
    BATCH,
    CHANNELS,
    Loss,
    LossPromises,
    Taught,
    TeachingPromises,
    assert_equal,
    batches,
    examples,
    features,
)
from hypothesis import given
from torch import Tensor

from skdtune.methods.byot.formulas import byot_feature_loss


def test_byot_features() -> None:
    feature, final = features(0).numpy(), features(1).numpy()
    total, skipped = 0.0, 0
    for i in range(BATCH):
        for c in range(CHANNELS):
            if feature[i, c] > 0 or final[i, c] > 0:
                total += (feature[i, c] - final[i, c]) ** 2
            else:
                skipped += 1
    assert skipped > 5
    assert_equal(byot_feature_loss(features(0), features(1)), total)


def test_byot_features_are_not_pulled_where_both_are_negative() -> None:
    feature = torch.tensor([[-1.0, -1.0, 2.0, 0.0]], requires_grad=True)
    byot_feature_loss(feature, torch.tensor([[-3.0, 3.0, -3.0, 0.0]])).backward()
    assert feature.grad is not None
    assert feature.grad.tolist() == [[0, -8, 10, 0]]


LOSSES: dict[str, Loss] = {"features": lambda z: byot_feature_loss(z, z.flip(1))}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


TAUGHT: dict[str, tuple[Taught, Tensor, Tensor]] = {
    "features": (byot_feature_loss, features(0), features(1))
}


@pytest.mark.parametrize(("loss", "student", "teacher"), TAUGHT.values(), ids=TAUGHT)
class TestTeaching(TeachingPromises):
    """Who learns, and what from."""


@examples
@given(batches())
def test_the_loss_is_not_negative(rows: list[Tensor]) -> None:
    assert byot_feature_loss(*rows) >= 0
