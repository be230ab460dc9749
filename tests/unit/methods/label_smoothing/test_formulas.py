"""The formula of label smoothing against plain loops, and at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formula_cases import (
    BATCH,
    CLASSES,
    Loss,
    LossPromises,
    assert_equal,
    batches,
    examples,
    labels,
    logits,
    softmax,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skdtune.methods.functional import cross_entropy
from skdtune.methods.label_smoothing.formulas import label_smoothing_loss


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.5])
def test_label_smoothing(smoothing: float) -> None:
    target = np.full((BATCH, CLASSES), smoothing / (CLASSES - 1))
    target[np.arange(BATCH), labels().numpy()] = 1 - smoothing
    expected = -np.sum(target * np.log(softmax(logits().numpy()))) / BATCH
    received = label_smoothing_loss(logits(), labels(), smoothing)
    assert_equal(received, expected)
    in_torch = smoothing * CLASSES / (CLASSES - 1)
    assert_equal(received, F.cross_entropy(logits(), labels(), label_smoothing=in_torch).item())


def test_label_smoothing_of_nothing_is_cross_entropy() -> None:
    assert torch.equal(
        label_smoothing_loss(logits(), labels(), 0.0), cross_entropy(logits(), labels())
    )


def test_label_smoothing_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, received 1"):
        label_smoothing_loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), 0.1)


LOSSES: dict[str, Loss] = {"label_smoothing": lambda z: label_smoothing_loss(z, labels(), 0.1)}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


def test_the_gradient_agrees_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(LOSSES["label_smoothing"], logits().requires_grad_())


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
