"""The label term of label smoothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from term_steps import CONTEXT, dtypes_of, make_step

from skdtune.methods.base import BuildContext
from skdtune.methods.label_smoothing.formulas import label_smoothing_loss
from skdtune.methods.label_smoothing.settings import LabelSmoothingConfig
from skdtune.methods.label_smoothing.term import LabelSmoothing


def test_its_loss_is_the_formula() -> None:
    step = make_step()
    losses = LabelSmoothing(LabelSmoothingConfig(smoothing=0.3), CONTEXT)(step)
    assert set(losses) == {"label_smoothing"}
    expected = label_smoothing_loss(step.logits_BK, step.labels_B, 0.3)
    assert torch.equal(losses["label_smoothing"], expected)


def test_label_smoothing_refuses_a_single_class() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, received 1"):
        LabelSmoothing(LabelSmoothingConfig(), BuildContext(CONTEXT.stage_shapes, 1))


def test_it_takes_the_weight_that_is_left_to_it() -> None:
    term, step = LabelSmoothing(LabelSmoothingConfig(), CONTEXT), make_step()
    (whole,) = term(step).values()
    (half,) = term(replace(step, label_weight=0.5)).values()
    assert torch.equal(half, 0.5 * whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_loss_is_in_full_precision(dtype: torch.dtype, autocast: bool) -> None:
    dtypes = dtypes_of(LabelSmoothing(LabelSmoothingConfig(), CONTEXT), dtype, autocast=autocast)
    assert set(dtypes.values()) == {torch.promote_types(dtype, torch.float32)}
