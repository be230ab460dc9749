"""The attention of FRSKD against plain loops, and at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formula_cases import (
    BATCH,
    Array,
    Loss,
    LossPromises,
    Taught,
    TeachingPromises,
    assert_equal,
    examples,
    maps,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from skdtune.methods.frskd.formulas import attention_map, attention_transfer_loss


def attention_by_loops(feature: Array) -> Array:
    batch, channels, height, width = feature.shape
    result = np.zeros((batch, height * width))
    for i in range(batch):
        for h in range(height):
            for w in range(width):
                energy = sum(feature[i, c, h, w] ** 2 for c in range(channels)) / channels
                result[i, h * width + w] = energy
        result[i] /= np.sqrt((result[i] ** 2).sum())
    return result


def test_attention() -> None:
    expected = attention_by_loops(maps().numpy())
    np.testing.assert_allclose(attention_map(maps()), expected, rtol=1e-12)
    teacher = attention_by_loops(maps(1, channels=5).numpy())
    received = attention_transfer_loss(maps(), maps(1, channels=5))
    assert_equal(received, float(np.mean((expected - teacher) ** 2)))


def test_attention_to_nothing_is_finite() -> None:
    empty = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer_loss(empty, torch.rand(2, 5, 4, 4))
    loss.backward()
    assert loss.item() == pytest.approx(1 / 16)
    assert empty.grad is not None
    assert empty.grad.isfinite().all()


def test_low_precision_gives_float32_attention() -> None:
    attention = attention_map(maps().bfloat16())
    assert attention.dtype == torch.float32
    assert attention.isfinite().all()


LOSSES: dict[str, Loss] = {
    "attention": lambda z: attention_transfer_loss(
        z[:, :, None, None].expand(-1, -1, 2, 3), z.flip(0)[:, None, :6].reshape(BATCH, 1, 2, 3)
    )
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
class TestLosses(LossPromises):
    """At the extremes, and in each precision."""


TAUGHT: dict[str, tuple[Taught, Tensor, Tensor]] = {
    "attention": (attention_transfer_loss, maps(0), maps(1))
}


@pytest.mark.parametrize(("loss", "student", "teacher"), TAUGHT.values(), ids=TAUGHT)
class TestTeaching(TeachingPromises):
    """Who learns, and what from."""


@examples
@given(arrays("float64", (2, 3, 2, 4), elements=st.floats(0.1, 50)), st.floats(0.1, 10))
def test_attention_has_length_1_and_no_scale(feature: Array, scale: float) -> None:
    feature_BCHW = torch.from_numpy(feature)
    attention = attention_map(feature_BCHW)
    assert attention.shape == (2, 8)
    torch.testing.assert_close(attention.norm(dim=-1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(attention_map(scale * feature_BCHW), attention)
    mixed = feature_BCHW[:, [2, 0, 1]]
    assert attention_transfer_loss(feature_BCHW, mixed).item() == pytest.approx(0, abs=1e-20)
    assert attention_transfer_loss(feature_BCHW, feature_BCHW.flip(3)) <= 2 / 8
