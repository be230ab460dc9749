"""The term of BYOT: its weight times the formula of its source."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from term_steps import CONTEXT, close, make_step

from skdtune.methods.byot.formulas import byot_feature_loss
from skdtune.methods.byot.settings import ByotConfig
from skdtune.methods.byot.term import Byot
from skdtune.methods.functional import cross_entropy, soft_cross_entropy
from skdtune.models.heads.auxiliary import AuxiliaryClassifier


@pytest.mark.parametrize(("weight", "share"), [(0.3, 0.7), (0.0, 1.0)])
def test_what_it_leaves_to_the_labels(weight: float, share: float) -> None:
    assert Byot(ByotConfig(weight=weight), CONTEXT).label_weight == share


@pytest.mark.parametrize("stages", [None, (1,), (2,), (1, 2)])
def test_byot_sums_over_the_stages(stages: tuple[int, ...] | None) -> None:
    settings = ByotConfig(
        weight=0.3, temperature=2.0, stages=stages, aux_ce_weight=0.4, feature_weight=1e-3
    )
    term, step = Byot(settings, CONTEXT), make_step()
    taught = stages or (1, 2)
    # The last one, too: where a network has hidden layers behind it, features are its.
    assert term.stages == (*taught, 3)
    # Batch statistics in training mode are those of the batch: a second forward is the same.
    heads = []
    for stage in taught:
        head = term.auxiliaries[f"stage{stage}"]
        assert isinstance(head, AuxiliaryClassifier)
        heads.append(head.features_and_logits(step.stage_features[stage]))
    losses = term(step)
    assert list(losses) == ["byot", "byot_features", "byot_ce"]
    soft = [soft_cross_entropy(logits_BK, step.logits_BK, 2.0) for _, logits_BK in heads]
    final_BC = step.pooled_BC
    features = [byot_feature_loss(pooled_BC, final_BC) for pooled_BC, _ in heads]
    plain = [cross_entropy(logits_BK, step.labels_B) for _, logits_BK in heads]
    assert close(losses["byot"], 0.3 * sum(soft, torch.zeros(())))
    assert close(losses["byot_features"], 1e-3 * sum(features, torch.zeros(())))
    assert close(losses["byot_ce"], 0.7 * 0.4 * sum(plain, torch.zeros(())))


def test_features_are_those_that_hidden_layers_begin_with() -> None:
    term = Byot(ByotConfig(stages=(1,), feature_weight=1e-3), CONTEXT)
    step = make_step(pooled_BC=torch.randn(6, 99))
    head = term.auxiliaries["stage1"]
    assert isinstance(head, AuxiliaryClassifier)
    pooled_BC, _ = head.features_and_logits(step.stage_features[1])
    expected = byot_feature_loss(pooled_BC, step.stage_features[3].mean(dim=(2, 3)))
    assert close(term(step)["byot_features"], 1e-3 * expected)


def test_byot_teaches_the_early_stages_and_not_the_final_classifier() -> None:
    term, step = Byot(ByotConfig(stages=(1,)), CONTEXT), make_step()
    sum(term(step).values(), torch.zeros(())).backward()
    assert step.logits_BK.grad is None
    assert step.pooled_BC.grad is None
    assert step.stage_features[1].grad is not None
    assert all(parameter.grad is not None for parameter in term.parameters())


@pytest.mark.parametrize("off", [{"match_features": False}, {"feature_weight": 0.0}])
def test_byot_without_features(off: dict[str, Any]) -> None:
    term = Byot(ByotConfig(**off), CONTEXT)
    losses = term(make_step(pooled_BC=None))
    assert losses["byot_features"].item() == 0
    assert losses["byot"].item() > 0


def test_byot_narrows_its_auxiliary_classifiers() -> None:
    term = Byot(ByotConfig(stages=(1, 2), adapter_width=0.5), CONTEXT)
    gates = [head.gate.norm.num_features for head in term.auxiliaries.values()]
    assert gates == [2, 4]
    losses = term(make_step())
    sum(losses.values(), torch.zeros(())).backward()
    assert all(parameter.grad is not None for parameter in term.parameters())
