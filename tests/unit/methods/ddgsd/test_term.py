"""The term of DDGSD: its weight times the formula of its source."""

from __future__ import annotations

from typing import Any

import pytest
from term_steps import CONTEXT, close, make_step

from skdtune.methods.ddgsd.formulas import mean_discrepancy
from skdtune.methods.ddgsd.settings import DdgsdConfig
from skdtune.methods.ddgsd.term import Ddgsd
from skdtune.methods.functional import distillation_kl


@pytest.mark.parametrize(("weight", "share"), [(3.0, 0.5), (0.0, 1.0)])
def test_what_it_leaves_to_the_labels(weight: float, share: float) -> None:
    assert Ddgsd(DdgsdConfig(weight=weight), CONTEXT).label_weight == share


@pytest.mark.parametrize("discrepancy", ["scalar", "linear"])
def test_ddgsd_compares_the_two_halves_of_a_batch(discrepancy: Any) -> None:
    settings = DdgsdConfig(
        weight=0.6, temperature=2.0, feature_weight=0.2, discrepancy=discrepancy
    )
    term, step = Ddgsd(settings, CONTEXT), make_step()
    losses = term(step)
    assert list(losses) == ["ddgsd", "ddgsd_features"]
    one_BK, other_BK = step.logits_BK[:3], step.logits_BK[3:]
    mutual = distillation_kl(one_BK, other_BK, 2.0) + distillation_kl(other_BK, one_BK, 2.0)
    assert close(losses["ddgsd"], 0.6 * mutual)
    one_BC, other_BC = step.pooled_BC[:3], step.pooled_BC[3:]
    expected = 0.2 * mean_discrepancy(one_BC, other_BC, discrepancy)
    assert close(losses["ddgsd_features"], expected)
    losses["ddgsd"].backward()
    assert step.logits_BK.grad is not None
    assert step.logits_BK.grad.abs().sum(dim=-1).min() > 0, "both views learn"


@pytest.mark.parametrize("off", [{"match_features": False}, {"feature_weight": 0.0}])
def test_ddgsd_without_features(off: dict[str, Any]) -> None:
    term = Ddgsd(DdgsdConfig(**off), CONTEXT)
    losses = term(make_step(pooled_BC=None))
    assert losses["ddgsd_features"].item() == 0
    assert losses["ddgsd"].item() > 0
