"""What tests of formulas share: numbers, references in NumPy, and what every loss promises.

A method's ``test_formulas.py`` names its losses and derives its tests of them from the classes
here, with the losses as parameters; nothing is added here for a new one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
#: A loss of one batch of logits, with the teacher made from the same.
Loss = Callable[[Tensor], Tensor]
#: A loss of what learns and of what it learns from.
Taught = Callable[[Tensor, Tensor], Tensor]

BATCH, CLASSES, CHANNELS = 6, 11, 9
TEMPERATURES = (0.5, 1.0, 4.0, 10.0, 20.0)


def normal(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    """Draw numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def logits(seed: int = 0, num_rows: int = BATCH) -> Tensor:
    """Draw logits ``[B, K]``."""
    return normal(seed, num_rows, CLASSES)


def features(seed: int = 0) -> Tensor:
    """Draw pooled features ``[B, C]``."""
    return normal(100 + seed, BATCH, CHANNELS)


def maps(seed: int = 0, channels: int = CHANNELS) -> Tensor:
    """Draw feature maps ``[B, C, 4, 3]``."""
    return normal(200 + seed, BATCH, channels, 4, 3)


def labels() -> Tensor:
    """Return labels ``[B]``, no two of which are the same."""
    return torch.arange(BATCH) * 3 % CLASSES


def full(values: Tensor) -> Tensor:
    """Return values as a loss computes with them: in float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


# In NumPy


def softmax(rows: Array) -> Array:
    """Return the probabilities over the last axis."""
    powers: Array = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def log_softmax(row: Array) -> Array:
    """Return the logarithms of the probabilities of one row."""
    shifted = row - row.max()
    result: Array = shifted - np.log(np.exp(shifted).sum())
    return result


def divergence(target: Array, student: Array, temperature: float) -> float:
    """Return the softened divergence of a student's logits from probabilities, by loops."""
    total = 0.0
    for row, probs in zip(target, softmax(student / temperature), strict=True):
        total += sum(q * np.log(q / p) for q, p in zip(row, probs, strict=True) if q > 0)
    return temperature**2 * total / len(target)


def assert_equal(received: Tensor, expected: float) -> None:
    """Compare a loss with its reference."""
    assert received.ndim == 0
    assert received.item() == pytest.approx(expected, rel=1e-11, abs=1e-12)


# Any numbers

examples = settings(max_examples=60, deadline=None)
temperatures = st.floats(0.3, 20)


@st.composite
def batches(draw: st.DrawFn, *, num: int = 2, limit: float = 50) -> list[Tensor]:
    """Draw several batches of one shape."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(2, 7)))
    numbers = st.floats(-limit, limit, width=64)
    return [torch.from_numpy(draw(arrays("float64", shape, elements=numbers))) for _ in range(num)]


def some_labels(rows: Tensor, seed: int = 0) -> Tensor:
    """Draw a label for each row of logits."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, rows.shape[1], rows.shape[:1], generator=generator)


def require_finite_gradient(loss: Tensor, student: Tensor) -> None:
    """Require that a loss is finite, and so is what a student learns from it."""
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


class LossPromises:
    """What every loss keeps to at the extremes and in each precision; its parameter is `loss`."""

    @pytest.mark.parametrize("size", [200.0, 1e4, 1e6])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_extreme_logits_are_finite(self, loss: Loss, size: float, dtype: torch.dtype) -> None:
        extreme = (logits(4).sign() * size).to(dtype).requires_grad_()
        require_finite_gradient(loss(extreme), extreme)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_low_precision_gives_float32_losses(self, loss: Loss, dtype: torch.dtype) -> None:
        low = logits().to(dtype)
        received = loss(low)
        assert received.dtype == torch.float32
        assert received.ndim == 0
        assert torch.equal(received, loss(low.float()))

    def test_single_and_double_precision_agree(self, loss: Loss) -> None:
        double = loss(logits())
        assert double.dtype == torch.float64
        single = loss(logits().float()).item()
        assert single == pytest.approx(double.item(), rel=3e-5, abs=1e-6)

    def test_nan_is_not_hidden(self, loss: Loss) -> None:
        broken = logits()
        broken[2, 3] = torch.nan
        assert loss(broken).isnan()


class TeachingPromises:
    """What every loss keeps to that is taught; its parameters are `loss`, `student`, `teacher`."""

    def test_the_student_alone_learns(
        self, loss: Taught, student: Tensor, teacher: Tensor
    ) -> None:
        student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
        loss(student, teacher).backward()
        assert teacher.grad is None
        assert student.grad is not None
        assert student.grad.abs().max() > 0

    def test_gradients_agree_with_finite_differences(
        self, loss: Taught, student: Tensor, teacher: Tensor
    ) -> None:
        assert torch.autograd.gradcheck(
            lambda z: loss(z, teacher), student.clone().requires_grad_()
        )

    def test_nan_in_a_teacher_is_not_hidden(
        self, loss: Taught, student: Tensor, teacher: Tensor
    ) -> None:
        broken = teacher.clone()
        broken[2, 3] = torch.nan
        assert loss(student, broken).isnan()
