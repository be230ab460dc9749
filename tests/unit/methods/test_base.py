"""What a term is given, and what one has to give."""

from __future__ import annotations

from dataclasses import replace

import pytest
from term_steps import make_step

from skdtune.methods.base import Term


def test_a_term_without_a_loss_is_not_one() -> None:
    term = Term()
    term.start_epoch(0)
    assert term.stages == ()
    assert term.label_weight == term.label_weight_of(make_step().batch) == 1
    with pytest.raises(NotImplementedError):
        term(make_step())


def test_a_step_hands_out_only_what_there_is() -> None:
    step = make_step()
    step = replace(step, batch=replace(step.batch, second_BCHW=None))
    with pytest.raises(ValueError, match="no second images"):
        _ = step.second_BCHW
