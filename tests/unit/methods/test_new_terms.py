"""Each term is its weight times the formula of its source, and remembers what it should."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from skdtune.data.batches import Batch
from skdtune.describe.config import ModelConfig
from skdtune.methods.bake.formulas import bake_targets
from skdtune.methods.bake.settings import BakeConfig
from skdtune.methods.bake.term import Bake
from skdtune.methods.base import BuildContext, Step, Term
from skdtune.methods.byot.formulas import byot_feature_loss
from skdtune.methods.byot.settings import ByotConfig
from skdtune.methods.byot.term import Byot
from skdtune.methods.cs_kd.settings import CsKdConfig
from skdtune.methods.cs_kd.term import CsKd
from skdtune.methods.ddgsd.formulas import mean_discrepancy
from skdtune.methods.ddgsd.settings import DdgsdConfig
from skdtune.methods.ddgsd.term import Ddgsd
from skdtune.methods.dlb.settings import DlbConfig
from skdtune.methods.dlb.term import Dlb
from skdtune.methods.frskd.formulas import attention_transfer_loss
from skdtune.methods.frskd.settings import FrskdConfig
from skdtune.methods.frskd.term import Frskd
from skdtune.methods.functional import (
    cross_entropy,
    distillation_kl,
    distillation_kl_to_probs,
    soft_cross_entropy,
)
from skdtune.methods.ps_kd.formulas import ps_kd_loss
from skdtune.methods.ps_kd.settings import PsKdConfig
from skdtune.methods.ps_kd.term import PsKd
from skdtune.methods.tf_kd_reg.formulas import tf_kd_reg_loss
from skdtune.methods.tf_kd_reg.settings import TfKdRegConfig
from skdtune.methods.tf_kd_reg.term import TfKdReg
from skdtune.methods.tf_kd_self.formulas import tf_kd_self_loss
from skdtune.methods.tf_kd_self.settings import TfKdSelfConfig
from skdtune.methods.tf_kd_self.term import TfKdSelf
from skdtune.methods.zipf.formulas import dense_votes, zipf_loss
from skdtune.methods.zipf.settings import ZipfConfig
from skdtune.methods.zipf.term import Zipf
from skdtune.models.backbone import Backbone, ImageClassifier, build_backbone
from skdtune.models.description import StageShape
from skdtune.models.heads.auxiliary import AuxiliaryClassifier
from skdtune.models.network_file import NetworkInfo, write_network

MODEL = ModelConfig(name="resnet8", width=4)
NUM_CLASSES = 5
NUM_TRAIN = 20
SHAPES = (StageShape(4, 8, 8), StageShape(8, 4, 4), StageShape(16, 2, 2))
CONTEXT = BuildContext(SHAPES, NUM_CLASSES, NUM_TRAIN, MODEL)


def make_network() -> Backbone:
    torch.manual_seed(3)
    return build_backbone(
        MODEL.name, width=4, in_channels=1, image_size=(8, 8), num_classes=NUM_CLASSES
    )


def make_step(seed: int = 0, num_rows: int = 6, **changes: Any) -> Step:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    features = {
        number: random(num_rows, shape.channels, shape.height, shape.width).requires_grad_()
        for number, shape in enumerate(SHAPES, 1)
    }
    batch = Batch(
        random(num_rows, 1, 8, 8),
        torch.arange(num_rows) % NUM_CLASSES,
        torch.randperm(NUM_TRAIN, generator=generator)[:num_rows],
        random(num_rows, 1, 8, 8),
    )
    step = Step(
        batch=batch,
        logits_BK=random(num_rows, NUM_CLASSES).requires_grad_(),
        stage_features=features,
        pooled_BC=random(num_rows, SHAPES[-1].channels).requires_grad_(),
        network=make_network(),
        epoch=0,
        planned_epochs=10,
    )
    return replace(step, **changes)


def close(left: Tensor, right: Tensor) -> bool:
    """Compare losses; one that is a sum may be added up in another order."""
    return torch.allclose(left, right, rtol=1e-6, atol=1e-7)


# What is left to the label term


@pytest.mark.parametrize(
    ("term", "share"),
    [
        (PsKd(PsKdConfig(), CONTEXT), 1.0),
        (Byot(ByotConfig(weight=0.3), CONTEXT), 0.7),
        (Byot(ByotConfig(weight=0.0), CONTEXT), 1.0),
        (CsKd(CsKdConfig(weight=3.0), CONTEXT), 1.0),
        (Dlb(DlbConfig(), CONTEXT), 1.0),
        (TfKdReg(TfKdRegConfig(weight=0.2), CONTEXT), 0.8),
        (TfKdReg(TfKdRegConfig(weight=0.0), CONTEXT), 1.0),
        (Bake(BakeConfig(), CONTEXT), 1.0),
        (Ddgsd(DdgsdConfig(weight=3.0), CONTEXT), 0.5),
        (Ddgsd(DdgsdConfig(weight=0.0), CONTEXT), 1.0),
        (Frskd(FrskdConfig(), CONTEXT), 1.0),
        (Zipf(ZipfConfig(), CONTEXT), 1.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Term) else str(value),
)
def test_what_a_term_leaves_to_the_labels(term: Term, share: float) -> None:
    assert term.label_weight == share


# PS-KD


def test_ps_kd_begins_as_plain_cross_entropy() -> None:
    term = PsKd(PsKdConfig(), CONTEXT)
    for seed in range(3):
        # Two images in one step are not in question: an epoch has each of them once.
        step = make_step(seed, label_weight=0.5)
        fresh = PsKd(PsKdConfig(), CONTEXT)
        losses = fresh(step)
        assert list(losses) == ["ps_kd"]
        assert close(losses["ps_kd"], 0.5 * cross_entropy(step.logits_BK, step.labels_B))
        term(step)
    assert term.seen_N.any()


def test_the_share_of_the_memory_grows_with_the_planned_epochs() -> None:
    term = PsKd(PsKdConfig(weight=0.8), CONTEXT)
    before = make_step(0)
    term(before)
    remembered_BK = before.logits_BK.detach().softmax(dim=-1)
    for epoch, planned_epochs, share in ((1, 10, 0.16), (4, 10, 0.4), (9, 10, 0.8), (4, 5, 0.8)):
        logits_BK = make_step(1).logits_BK
        step = replace(before, logits_BK=logits_BK, epoch=epoch, planned_epochs=planned_epochs)
        fresh = PsKd(PsKdConfig(weight=0.8), CONTEXT)
        fresh.load_state_dict(term.state_dict())
        expected = ps_kd_loss(logits_BK, step.labels_B, remembered_BK, share)
        assert close(fresh(step)["ps_kd"], expected)
        assert not close(expected, cross_entropy(logits_BK, step.labels_B))


def test_a_prediction_is_remembered_by_the_number_of_its_image() -> None:
    term = PsKd(PsKdConfig(), CONTEXT)
    step = make_step(0)
    term(step)
    indices_B = step.batch.indices_B
    assert torch.equal(term.memory_NK[indices_B], step.logits_BK.detach().softmax(dim=-1))
    assert sorted(torch.nonzero(term.seen_N).flatten().tolist()) == sorted(indices_B.tolist())
    assert not term.memory_NK.requires_grad
    later = replace(step, logits_BK=make_step(1).logits_BK)
    term(later)
    assert torch.equal(term.memory_NK[indices_B], later.logits_BK.detach().softmax(dim=-1))


def test_an_image_that_was_not_seen_counts_as_remembered_right() -> None:
    term = PsKd(PsKdConfig(weight=0.8), CONTEXT)
    first = make_step(0)
    term(first)
    # Half of the images of the second step are new.
    known_B = first.batch.indices_B[:3]
    new_B = torch.nonzero(~term.seen_N).flatten()[:3]
    second = make_step(1)
    batch = replace(second.batch, indices_B=torch.cat((known_B, new_B)))
    step = replace(second, batch=batch, epoch=9)
    onehot_BK = torch.eye(NUM_CLASSES)[step.labels_B]
    memory_BK = first.logits_BK.detach().softmax(dim=-1)
    expected_BK = torch.cat((memory_BK[:3], onehot_BK[3:]))
    expected = ps_kd_loss(step.logits_BK, step.labels_B, expected_BK, 0.8)
    assert close(term(step)["ps_kd"], expected)


def test_ps_kd_of_weight_zero_remembers_nothing() -> None:
    term = PsKd(PsKdConfig(weight=0.0), CONTEXT)
    step = make_step(epoch=9)
    assert torch.equal(term(step)["ps_kd"], cross_entropy(step.logits_BK, step.labels_B))
    assert term.memory_NK.numel() == 0


# BYOT


@pytest.mark.parametrize("stages", [None, (1,), (2,), (1, 2)])
def test_byot_sums_over_the_stages(stages: tuple[int, ...] | None) -> None:
    settings = ByotConfig(
        weight=0.3, temperature=2.0, stages=stages, aux_ce_weight=0.4, feature_weight=1e-3
    )
    term, step = Byot(settings, CONTEXT), make_step()
    taught = stages or (1, 2)
    assert term.stages == taught
    assert term.reads_pooled
    # Batch statistics in training mode are those of the batch: a second forward is the same.
    heads = []
    for stage in taught:
        head = term.auxiliaries[f"stage{stage}"]
        assert isinstance(head, AuxiliaryClassifier)
        heads.append(head.features_and_logits(step.stage_features[stage]))
    losses = term(step)
    assert list(losses) == ["byot", "byot_features", "byot_ce"]
    soft = [soft_cross_entropy(logits_BK, step.logits_BK, 2.0) for _, logits_BK in heads]
    final_BC = step.final_features_BC
    features = [byot_feature_loss(pooled_BC, final_BC) for pooled_BC, _ in heads]
    plain = [cross_entropy(logits_BK, step.labels_B) for _, logits_BK in heads]
    assert close(losses["byot"], 0.3 * sum(soft, torch.zeros(())))
    assert close(losses["byot_features"], 1e-3 * sum(features, torch.zeros(())))
    assert close(losses["byot_ce"], 0.7 * 0.4 * sum(plain, torch.zeros(())))


def test_byot_teaches_the_early_stages_and_not_the_final_classifier() -> None:
    term, step = Byot(ByotConfig(stages=(1,)), CONTEXT), make_step()
    sum(term(step).values(), torch.zeros(())).backward()
    assert step.logits_BK.grad is None
    assert step.final_features_BC.grad is None
    assert step.stage_features[1].grad is not None
    assert all(parameter.grad is not None for parameter in term.parameters())


@pytest.mark.parametrize("off", [{"match_features": False}, {"feature_weight": 0.0}])
def test_byot_without_features(off: dict[str, Any]) -> None:
    term = Byot(ByotConfig(**off), CONTEXT)
    assert not term.reads_pooled
    losses = term(make_step(pooled_BC=None))
    assert losses["byot_features"].item() == 0
    assert losses["byot"].item() > 0


# CS-KD


def test_cs_kd_learns_from_the_partners_outputs() -> None:
    term = CsKd(CsKdConfig(weight=3.0, temperature=2.0), CONTEXT)
    step = make_step()
    partner_BK = make_network()(step.second_BCHW)[0]
    (name, loss), *others = term(step).items()
    assert (name, others) == ("cs_kd", [])
    assert close(loss, 3.0 * distillation_kl(step.logits_BK, partner_BK.detach(), 2.0))
    loss.backward()
    assert step.logits_BK.grad is not None
    assert all(parameter.grad is None for parameter in step.network.parameters())


def test_the_partners_count_for_the_batch_statistics() -> None:
    term, step = CsKd(CsKdConfig(), CONTEXT), make_step()
    expected = make_network()
    expected(step.second_BCHW)
    untouched = {name: value.clone() for name, value in step.network.named_buffers()}
    term(step)
    assert step.network.training
    running = dict(step.network.named_buffers())
    assert any(name.endswith("running_mean") for name in running)
    for name, value in expected.named_buffers():
        assert torch.equal(running[name], value), name
    assert any(not torch.equal(running[name], untouched[name]) for name in running)


# DLB


def test_the_first_step_of_dlb_is_cross_entropy_alone() -> None:
    term, step = Dlb(DlbConfig(), CONTEXT), make_step()
    assert term.label_weight == 1.0
    losses = term(step)
    assert {name: loss.item() for name, loss in losses.items()} == {"dlb": 0.0, "dlb_ce": 0.0}
    assert term.label_weight == 0.5


def test_dlb_classifies_the_second_views_of_the_batch_before_again() -> None:
    term = Dlb(DlbConfig(weight=0.7, temperature=2.0), CONTEXT)
    first, second, third = (make_step(seed) for seed in range(3))
    term(first)
    term.start_epoch(1)  # The memory crosses the epochs.
    for before, now in ((first, second), (second, third)):
        assert term.label_weight == 0.5
        again_BK = make_network()(before.second_BCHW).logits_BK
        losses = term(now)
        expected = 0.7 * distillation_kl(again_BK, before.logits_BK, 2.0)
        assert close(losses["dlb"], expected)
        assert close(losses["dlb_ce"], 0.5 * cross_entropy(again_BK, before.labels_B))
        sum(losses.values(), torch.zeros(())).backward()
        assert before.logits_BK.grad is None
        assert all(parameter.grad is not None for parameter in now.network.parameters())


def test_the_memory_of_dlb_survives_a_checkpoint() -> None:
    term, first, second = Dlb(DlbConfig(), CONTEXT), make_step(0), make_step(1)
    term(first)
    state = term.state_dict()
    memory = state["_extra_state"]
    assert torch.equal(memory["images_BCHW"], first.second_BCHW)
    assert torch.equal(memory["labels_B"], first.labels_B)
    assert torch.equal(memory["logits_BK"], first.logits_BK)
    assert not memory["logits_BK"].requires_grad
    other = Dlb(DlbConfig(), CONTEXT)
    other.load_state_dict(state)
    assert other.label_weight == 0.5
    expected = term(second)
    found = other(replace(second, network=make_network()))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_dlb_of_weight_zero_remembers_nothing() -> None:
    term = Dlb(DlbConfig(weight=0.0), CONTEXT)
    for seed in range(2):
        assert all(loss.item() == 0 for loss in term(make_step(seed)).values())
    assert term.get_extra_state() is None
    assert term.label_weight == 1.0


# TF-KD


@pytest.fixture
def teacher(tmp_path: Path) -> tuple[nn.Module, dict[str, str]]:
    """Write a frozen network, and return it with what names it."""
    torch.manual_seed(8)
    network = ImageClassifier(make_network())
    network.train()(torch.randn(16, 1, 8, 8))
    info = NetworkInfo(
        model="resnet8",
        width=4,
        in_channels=1,
        height=8,
        image_width=8,
        class_names=tuple("abcde"),
        mean=(0.0,),
        std=(1.0,),
        data_fingerprint="x",
        trained_on="train",
        config={},
        study="baseline",
        trial=0,
        accuracy=0.5,
        precision="float32",
        environment={},
    )
    content = write_network(info, network.state_dict())
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    return network.eval(), {"teacher": str(path), "teacher_sha256": checksum}


@pytest.mark.parametrize(("multiplier", "factor"), [(None, NUM_CLASSES / 2), (7.0, 7.0)])
def test_tf_kd_self_learns_from_the_frozen_network(
    teacher: tuple[nn.Module, dict[str, str]], multiplier: float | None, factor: float
) -> None:
    network, named = teacher
    settings = TfKdSelfConfig(**named, weight=0.9, temperature=3.0, multiplier=multiplier)
    term, step = TfKdSelf(settings, CONTEXT), make_step()
    assert term.label_weight == pytest.approx(0.1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        teacher_BK = network(step.batch.images_BCHW)
    for _ in range(2):
        # In evaluation mode: what it saw before changes nothing.
        losses = term.train()(step)
        assert list(losses) == ["tf_kd_self"]
        expected = 0.9 * factor * tf_kd_self_loss(step.logits_BK, teacher_BK, 3.0)
        assert close(losses["tf_kd_self"], expected)
    losses["tf_kd_self"].backward()
    assert step.logits_BK.grad is not None
    (kept,) = term._teacher
    assert all(torch.equal(value, before[name]) for name, value in kept.state_dict().items())


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


# BAKE, DDGSD


def test_bake_learns_from_what_the_batch_makes_together() -> None:
    settings = BakeConfig(weight=0.6, temperature=2.0, omega=0.7)
    term, step = Bake(settings, CONTEXT), make_step(num_rows=8)
    assert term.reads_pooled
    losses = term(step)
    assert list(losses) == ["bake"]
    target_BK = bake_targets(step.logits_BK, step.final_features_BC, 0.7, 2.0)
    expected = 0.6 * distillation_kl_to_probs(step.logits_BK, target_BK, 2.0)
    assert close(losses["bake"], expected)
    losses["bake"].backward()
    assert step.logits_BK.grad is not None
    assert step.final_features_BC.grad is None


@pytest.mark.parametrize("discrepancy", ["scalar", "linear"])
def test_ddgsd_compares_the_two_halves_of_a_batch(discrepancy: Any) -> None:
    settings = DdgsdConfig(
        weight=0.6, temperature=2.0, feature_weight=0.2, discrepancy=discrepancy
    )
    term, step = Ddgsd(settings, CONTEXT), make_step()
    assert term.reads_pooled
    losses = term(step)
    assert list(losses) == ["ddgsd", "ddgsd_features"]
    one_BK, other_BK = step.logits_BK[:3], step.logits_BK[3:]
    mutual = distillation_kl(one_BK, other_BK, 2.0) + distillation_kl(other_BK, one_BK, 2.0)
    assert close(losses["ddgsd"], 0.6 * mutual)
    one_BC, other_BC = step.final_features_BC[:3], step.final_features_BC[3:]
    expected = 0.2 * mean_discrepancy(one_BC, other_BC, discrepancy)
    assert close(losses["ddgsd_features"], expected)
    losses["ddgsd"].backward()
    assert step.logits_BK.grad is not None
    assert step.logits_BK.grad.abs().sum(dim=-1).min() > 0, "both views learn"


@pytest.mark.parametrize("off", [{"match_features": False}, {"feature_weight": 0.0}])
def test_ddgsd_without_features(off: dict[str, Any]) -> None:
    term = Ddgsd(DdgsdConfig(**off), CONTEXT)
    assert not term.reads_pooled
    losses = term(make_step(pooled_BC=None))
    assert losses["ddgsd_features"].item() == 0
    assert losses["ddgsd"].item() > 0


# FRSKD


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


# Zipf


@pytest.mark.parametrize("upsample", [True, False])
def test_zipf_ranks_by_the_votes_of_the_last_map(upsample: bool) -> None:
    settings = ZipfConfig(weight=0.4, power=1.5, upsample=upsample)
    term, step = Zipf(settings, CONTEXT), make_step()
    assert term.stages == (3,)
    classifier = step.network.classifier
    votes_BK = dense_votes(step.stage_features[3], classifier.weight, classifier.bias, upsample)
    losses = term(step)
    assert list(losses) == ["zipf"]
    expected = 0.4 * zipf_loss(step.logits_BK, votes_BK, step.labels_B, 1.5)
    assert close(losses["zipf"], expected)
    losses["zipf"].backward()
    assert step.logits_BK.grad is not None
    assert step.stage_features[3].grad is None
    assert classifier.weight.grad is None


def test_zipf_without_dense_votes_ranks_by_the_logits() -> None:
    term = Zipf(ZipfConfig(weight=0.4, power=1.5, dense=False), CONTEXT)
    assert term.stages == ()
    step = make_step(stage_features={})
    expected = 0.4 * zipf_loss(step.logits_BK, step.logits_BK.detach(), step.labels_B, 1.5)
    assert close(term(step)["zipf"], expected)
