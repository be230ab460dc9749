"""The term of PS-KD: its weight times the formula of its source, and what it remembers."""

from __future__ import annotations

from dataclasses import replace

import torch
from term_steps import CONTEXT, NUM_CLASSES, close, make_step

from skdtune.methods.functional import cross_entropy
from skdtune.methods.ps_kd.formulas import ps_kd_loss
from skdtune.methods.ps_kd.settings import PsKdConfig
from skdtune.methods.ps_kd.term import PsKd


def test_all_is_left_to_the_labels() -> None:
    assert PsKd(PsKdConfig(), CONTEXT).label_weight == 1.0


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
