from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from skdtune.data.batches import Batch
from skdtune.methods.base import BuildContext, Step, Term
from skdtune.methods.cross_entropy.settings import CrossEntropyConfig
from skdtune.methods.cross_entropy.term import CrossEntropy
from skdtune.methods.drg import term as drg_module
from skdtune.methods.drg.formulas import auxiliary_cross_entropy, drg_loss
from skdtune.methods.drg.settings import DrgConfig
from skdtune.methods.drg.term import Drg
from skdtune.methods.dsr.formulas import dsr_loss, ranked
from skdtune.methods.dsr.settings import DsrConfig
from skdtune.methods.dsr.term import Dsr
from skdtune.methods.functional import cross_entropy
from skdtune.methods.label_smoothing.formulas import label_smoothing_loss
from skdtune.methods.label_smoothing.settings import LabelSmoothingConfig
from skdtune.methods.label_smoothing.term import LabelSmoothing
from skdtune.models.backbone import build_backbone
from skdtune.models.description import StageShape

NETWORK = build_backbone("resnet8", width=4, in_channels=1, image_size=(8, 8), num_classes=5)
CONTEXT = BuildContext((StageShape(4, 8, 8), StageShape(6, 4, 4), StageShape(8, 2, 2)), 5)


def make_step(seed: int = 0, num_rows: int = 6, dtype: torch.dtype = torch.float32) -> Step:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    features = {
        number: random(num_rows, shape.channels, shape.height, shape.width)
        for number, shape in enumerate(CONTEXT.stage_shapes, 1)
    }
    labels_B = torch.arange(num_rows) % 5
    images_BCHW = torch.zeros(num_rows, 1, 8, 8)
    return Step(
        batch=Batch(images_BCHW, labels_B, torch.arange(num_rows)),
        logits_BK=random(num_rows, 5),
        stage_features=features,
        network=NETWORK,
        epoch=0,
        planned_epochs=1,
    )


def all_terms() -> list[Term]:
    return [
        CrossEntropy(CrossEntropyConfig(), CONTEXT),
        LabelSmoothing(LabelSmoothingConfig(), CONTEXT),
        Drg(DrgConfig(stages=(1, 2)), CONTEXT),
        Dsr(DsrConfig(), CONTEXT),
    ]


def test_a_term_without_a_loss_is_not_one() -> None:
    term = Term()
    term.start_epoch(0)
    assert term.stages == ()
    assert term.label_weight == 1
    with pytest.raises(NotImplementedError):
        term(make_step())


def test_label_terms() -> None:
    step = make_step()
    plain = CrossEntropy(CrossEntropyConfig(), CONTEXT)(step)
    smooth = LabelSmoothing(LabelSmoothingConfig(smoothing=0.3), CONTEXT)(step)
    assert set(plain) == {"cross_entropy"}
    assert set(smooth) == {"label_smoothing"}
    assert torch.equal(plain["cross_entropy"], cross_entropy(step.logits_BK, step.labels_B))
    expected = label_smoothing_loss(step.logits_BK, step.labels_B, 0.3)
    assert torch.equal(smooth["label_smoothing"], expected)


def test_label_smoothing_refuses_a_single_class() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, received 1"):
        LabelSmoothing(LabelSmoothingConfig(), BuildContext(CONTEXT.stage_shapes, 1))


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


@pytest.mark.parametrize("pairing", ["row", "batch_mean"])
def test_dsr_compares_with_the_batch_before(pairing: Any) -> None:
    term = Dsr(DsrConfig(weight=0.3, temperature=2.0, pairing=pairing), CONTEXT)
    first, second, third = (make_step(seed, num_rows) for seed, num_rows in enumerate((6, 4, 6)))
    term.start_epoch(0)
    assert torch.equal(term(first)["dsr"], torch.zeros(()))
    for before, now in ((first, second), (second, third)):
        expected = 0.3 * dsr_loss(ranked(now.logits_BK), ranked(before.logits_BK), 2.0, pairing)
        received = term(now)["dsr"]
        assert torch.equal(received, expected)
    received.backward()
    assert second.logits_BK.grad is None
    assert third.logits_BK.grad is not None


def test_dsr_forgets_at_the_start_of_an_epoch() -> None:
    term = Dsr(DsrConfig(), CONTEXT)
    term(make_step(0))
    assert term(make_step(1))["dsr"].item() > 0
    term.start_epoch(1)
    assert term.state_dict()["_extra_state"] == {"previous_ranked_BK": None}
    assert term(make_step(2))["dsr"].item() == 0


def test_dsr_sorts_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    sort = Tensor.sort

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return sort(*args, **kwargs)

    monkeypatch.setattr(Tensor, "sort", counted)
    term = Dsr(DsrConfig(), CONTEXT)
    for seed in range(3):
        term(make_step(seed))
    assert len(calls) == 3


def test_dsr_with_weight_zero_remembers_nothing() -> None:
    term = Dsr(DsrConfig(weight=0.0), CONTEXT)
    assert all(term(make_step(seed))["dsr"].item() == 0 for seed in range(2))
    assert term.get_extra_state() == {"previous_ranked_BK": None}


def test_the_memory_of_dsr_holds_no_graph() -> None:
    term = Dsr(DsrConfig(), CONTEXT)
    term(make_step())
    memory = term.get_extra_state()["previous_ranked_BK"]
    assert memory is not None
    assert not memory.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_losses_are_in_full_precision(dtype: torch.dtype, autocast: bool) -> None:
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        for term in all_terms():
            for seed in range(2):
                for name, loss in term(make_step(seed, dtype=dtype)).items():
                    own = torch.float32 if name == "aux_ce" else expected
                    assert (loss.dtype, loss.shape) == (own, ()), name


def test_autocast_changes_no_loss() -> None:
    term = Drg(DrgConfig(), CONTEXT)
    plain = term(make_step())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = term(make_step())
    assert all(torch.equal(plain[name], cast[name]) for name in plain)


def test_a_step_hands_out_only_what_there_is() -> None:
    step = make_step()
    with pytest.raises(ValueError, match="no second images"):
        _ = step.second_BCHW
    with pytest.raises(ValueError, match="reads_pooled"):
        _ = step.final_features_BC


@pytest.mark.parametrize("label", [CrossEntropy, LabelSmoothing])
def test_label_terms_take_the_weight_that_is_left_to_them(label: Any) -> None:
    settings = {CrossEntropy: CrossEntropyConfig(), LabelSmoothing: LabelSmoothingConfig()}
    term, step = label(settings[label], CONTEXT), make_step()
    (whole,) = term(step).values()
    (half,) = term(replace(step, label_weight=0.5)).values()
    assert torch.equal(half, 0.5 * whole)
