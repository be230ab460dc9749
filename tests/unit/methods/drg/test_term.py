"""The term of DRG: its weight times the formula of its source."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from term_steps import CONTEXT, dtypes_of, make_step

from skdtune.methods.drg import term as drg_module
from skdtune.methods.drg.formulas import auxiliary_cross_entropy, drg_loss
from skdtune.methods.drg.settings import DrgConfig
from skdtune.methods.drg.term import Drg


@pytest.mark.parametrize("stages", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("teacher", ["mean_probs", "mean_logits"])
def test_drg_weighs_its_losses(stages: tuple[int, ...], teacher: Any) -> None:
    settings = DrgConfig(
        weight=0.7, temperature=3.0, stages=stages, aux_ce_weight=0.4, teacher=teacher
    )
    term, step = Drg(settings, CONTEXT), make_step()
    assert term.stages == stages
    aux_logits = [term.auxiliaries[f"stage{s}"](step.stage_features[s]) for s in stages]
    losses = term(step)
    assert list(losses) == ["drg", "aux_ce"]
    expected = 0.7 * drg_loss(step.logits_BK, aux_logits, 3.0, teacher)
    assert torch.equal(losses["drg"], expected)
    expected = 0.4 * auxiliary_cross_entropy(aux_logits, step.labels_B)
    assert torch.equal(losses["aux_ce"], expected)


def test_where_the_gradients_of_drg_go() -> None:
    term, step = Drg(DrgConfig(stages=(1,)), CONTEXT), make_step()
    losses = term(step)
    losses["drg"].backward(retain_graph=True)
    assert step.logits_BK.grad is not None
    assert step.stage_features[1].grad is None
    assert all(parameter.grad is None for parameter in term.parameters())
    step.logits_BK.grad = None
    losses["aux_ce"].backward()
    assert step.logits_BK.grad is None
    assert step.stage_features[1].grad is not None
    assert all(parameter.grad is not None for parameter in term.parameters())


def test_drg_with_weight_zero_keeps_training_the_auxiliary_classifiers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = make_step()
    torch.manual_seed(1)
    expected = Drg(DrgConfig(), CONTEXT)(step)["aux_ce"]
    monkeypatch.setattr(drg_module, "drg_loss", None)  # would fail if it were called
    torch.manual_seed(1)
    losses = Drg(DrgConfig(weight=0.0), CONTEXT)(step)
    assert losses["drg"].item() == 0
    assert torch.equal(losses["aux_ce"], expected)


def test_drg_without_auxiliary_cross_entropy() -> None:
    losses = Drg(DrgConfig(aux_ce_weight=0.0), CONTEXT)(make_step())
    assert losses["aux_ce"].item() == 0
    assert losses["drg"].item() > 0


def test_drg_passes_align_corners_on() -> None:
    term = Drg(DrgConfig(stages=(1, 2), align_corners="published"), CONTEXT)
    assert [head.gate.align_corners for head in term.auxiliaries.values()] == [False, True]


def test_drg_refuses_the_last_stage() -> None:
    with pytest.raises(ValueError, match="received 3"):
        Drg(DrgConfig(stages=(3,)), CONTEXT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_losses_are_in_full_precision(dtype: torch.dtype, autocast: bool) -> None:
    dtypes = dtypes_of(Drg(DrgConfig(stages=(1, 2)), CONTEXT), dtype, autocast=autocast)
    # The auxiliary classifiers have weights of float32.
    assert dtypes == {"drg": torch.promote_types(dtype, torch.float32), "aux_ce": torch.float32}


def test_autocast_changes_no_loss() -> None:
    term = Drg(DrgConfig(), CONTEXT)
    plain = term(make_step())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = term(make_step())
    assert all(torch.equal(plain[name], cast[name]) for name in plain)


def test_drg_narrows_its_auxiliary_classifiers() -> None:
    term = Drg(DrgConfig(stages=(1, 2), adapter_width=0.5), CONTEXT)
    gates = [head.gate.norm.num_features for head in term.auxiliaries.values()]
    assert gates == [2, 4]
    losses = term(make_step())
    sum(losses.values(), torch.zeros(())).backward()
    assert all(parameter.grad is not None for parameter in term.parameters())
