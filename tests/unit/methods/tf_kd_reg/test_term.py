"""The term of TF-KD without a teacher: its weight times the formula of its source."""

from __future__ import annotations

import pytest
from term_steps import CONTEXT, NUM_CLASSES, close, make_step

from skdtune.methods.tf_kd_reg.formulas import tf_kd_reg_loss
from skdtune.methods.tf_kd_reg.settings import TfKdRegConfig
from skdtune.methods.tf_kd_reg.term import TfKdReg


@pytest.mark.parametrize(("weight", "share"), [(0.2, 0.8), (0.0, 1.0)])
def test_what_it_leaves_to_the_labels(weight: float, share: float) -> None:
    assert TfKdReg(TfKdRegConfig(weight=weight), CONTEXT).label_weight == share


@pytest.mark.parametrize(("multiplier", "factor"), [(None, NUM_CLASSES), (7.0, 7.0)])
def test_tf_kd_reg_learns_from_a_target_made_by_hand(
    multiplier: float | None, factor: float
) -> None:
    settings = TfKdRegConfig(
        weight=0.3, correct_prob=0.95, temperature=10.0, multiplier=multiplier
    )
    term, step = TfKdReg(settings, CONTEXT), make_step()
    losses = term(step)
    assert list(losses) == ["tf_kd_reg"]
    expected = 0.3 * factor * tf_kd_reg_loss(step.logits_BK, step.labels_B, 0.95, 10.0)
    assert close(losses["tf_kd_reg"], expected)
