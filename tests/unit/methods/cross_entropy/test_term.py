"""The label term of the baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from term_steps import CONTEXT, dtypes_of, make_step

from skdtune.methods.cross_entropy.settings import CrossEntropyConfig
from skdtune.methods.cross_entropy.term import CrossEntropy
from skdtune.methods.functional import cross_entropy


def test_its_loss_is_the_cross_entropy() -> None:
    step = make_step()
    losses = CrossEntropy(CrossEntropyConfig(), CONTEXT)(step)
    assert set(losses) == {"cross_entropy"}
    assert torch.equal(losses["cross_entropy"], cross_entropy(step.logits_BK, step.labels_B))


def test_it_takes_the_weight_that_is_left_to_it() -> None:
    term, step = CrossEntropy(CrossEntropyConfig(), CONTEXT), make_step()
    (whole,) = term(step).values()
    (half,) = term(replace(step, label_weight=0.5)).values()
    assert torch.equal(half, 0.5 * whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_loss_is_in_full_precision(dtype: torch.dtype, autocast: bool) -> None:
    dtypes = dtypes_of(CrossEntropy(CrossEntropyConfig(), CONTEXT), dtype, autocast=autocast)
    assert set(dtypes.values()) == {torch.promote_types(dtype, torch.float32)}
