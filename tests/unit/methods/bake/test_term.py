"""The term of BAKE: its weight times the formula of its source."""

from __future__ import annotations

from term_steps import CONTEXT, close, make_step

from skdtune.methods.bake.formulas import bake_targets
from skdtune.methods.bake.settings import BakeConfig
from skdtune.methods.bake.term import Bake
from skdtune.methods.functional import distillation_kl_to_probs


def test_all_is_left_to_the_labels() -> None:
    assert Bake(BakeConfig(), CONTEXT).label_weight == 1.0


def test_bake_learns_from_what_the_batch_makes_together() -> None:
    settings = BakeConfig(weight=0.6, temperature=2.0, omega=0.7)
    term, step = Bake(settings, CONTEXT), make_step(num_rows=8)
    losses = term(step)
    assert list(losses) == ["bake"]
    target_BK = bake_targets(step.logits_BK, step.pooled_BC, 0.7, 2.0)
    expected = 0.6 * distillation_kl_to_probs(step.logits_BK, target_BK, 2.0)
    assert close(losses["bake"], expected)
    losses["bake"].backward()
    assert step.logits_BK.grad is not None
    assert step.pooled_BC.grad is None
