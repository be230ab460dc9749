"""The term of FRSKD: its weight times the formula of its source."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from term_steps import CONTEXT, close, make_step

from skdtune.methods.frskd.formulas import attention_transfer_loss
from skdtune.methods.frskd.settings import FrskdConfig
from skdtune.methods.frskd.term import Frskd
from skdtune.methods.functional import cross_entropy, distillation_kl


def test_all_is_left_to_the_labels() -> None:
    assert Frskd(FrskdConfig(), CONTEXT).label_weight == 1.0


def test_frskd_learns_from_its_pyramid() -> None:
    settings = FrskdConfig(
        weight=0.5, temperature=2.0, attention_weight=30.0, aux_ce_weight=0.4, width=1, depth=1
    )
    term, step = Frskd(settings, CONTEXT), make_step()
    assert term.stages == (1, 2, 3)
    features = [step.stage_features[stage] for stage in term.stages]
    refined, refined_BK = term.pyramid(features)
    losses = term(step)
    assert list(losses) == ["frskd", "frskd_attention", "frskd_ce"]
    assert close(losses["frskd"], 0.5 * distillation_kl(step.logits_BK, refined_BK, 2.0))
    attention = [
        attention_transfer_loss(feature_BCHW, refined_BCHW)
        for feature_BCHW, refined_BCHW in zip(features, refined, strict=True)
    ]
    assert close(losses["frskd_attention"], 30.0 * sum(attention, torch.zeros(())))
    assert close(losses["frskd_ce"], 0.4 * cross_entropy(refined_BK, step.labels_B))


def test_the_pyramid_learns_from_the_labels_alone() -> None:
    term, step = Frskd(FrskdConfig(width=1, depth=1), CONTEXT), make_step()
    losses = term(step)
    (losses["frskd"] + losses["frskd_attention"]).backward(retain_graph=True)
    assert step.logits_BK.grad is not None
    assert all(step.stage_features[stage].grad is not None for stage in term.stages)
    assert all(parameter.grad is None for parameter in term.parameters())
    losses["frskd_ce"].backward()
    assert all(parameter.grad is not None for parameter in term.parameters())


@pytest.mark.parametrize(
    ("off", "name"),
    [
        ({"weight": 0.0}, "frskd"),
        ({"match_attention": False}, "frskd_attention"),
        ({"attention_weight": 0.0}, "frskd_attention"),
        ({"aux_ce_weight": 0.0}, "frskd_ce"),
    ],
)
def test_a_part_of_frskd_can_be_switched_off(off: dict[str, Any], name: str) -> None:
    losses = Frskd(FrskdConfig(**off), CONTEXT)(make_step())
    assert {name for name, loss in losses.items() if loss.item() == 0} == {name}
