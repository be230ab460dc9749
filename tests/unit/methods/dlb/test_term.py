"""The term of DLB: its weight times the formula of its source, and what it remembers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from term_steps import CONTEXT, close, make_network, make_step

from skdtune.methods.cross_entropy.settings import CrossEntropyConfig
from skdtune.methods.cross_entropy.term import CrossEntropy
from skdtune.methods.dlb.settings import DlbConfig
from skdtune.methods.dlb.term import Dlb
from skdtune.methods.functional import cross_entropy, distillation_kl


def test_all_is_left_to_the_labels() -> None:
    assert Dlb(DlbConfig(), CONTEXT).label_weight_of(make_step().batch) == 1.0


def test_the_first_step_of_dlb_is_cross_entropy_alone() -> None:
    term, step = Dlb(DlbConfig(), CONTEXT), make_step()
    assert term.label_weight_of(step.batch) == 1.0
    losses = term(step)
    assert {name: loss.item() for name, loss in losses.items()} == {"dlb": 0.0, "dlb_ce": 0.0}
    assert term.label_weight_of(step.batch) == 0.5


def test_dlb_classifies_the_second_views_of_the_batch_before_again() -> None:
    term = Dlb(DlbConfig(weight=0.7, temperature=2.0), CONTEXT)
    first, second, third = (make_step(seed) for seed in range(3))
    term(first)
    term.start_epoch(1)  # The memory crosses the epochs.
    for before, now in ((first, second), (second, third)):
        assert term.label_weight_of(now.batch) == 0.5
        again_BK = make_network()(before.second_BCHW).logits_BK
        losses = term(now)
        expected = 0.7 * distillation_kl(again_BK, before.logits_BK, 2.0)
        assert close(losses["dlb"], expected)
        assert close(losses["dlb_ce"], 0.5 * cross_entropy(again_BK, before.labels_B))
        sum(losses.values(), torch.zeros(())).backward()
        assert before.logits_BK.grad is None
        assert all(parameter.grad is not None for parameter in now.network.parameters())


@pytest.mark.parametrize(("before", "now"), [(6, 4), (4, 6), (6, 6)])
def test_the_rows_of_two_unequal_batches_count_alike(before: int, now: int) -> None:
    dlb, labels = Dlb(DlbConfig(), CONTEXT), CrossEntropy(CrossEntropyConfig(), CONTEXT)
    first, second = make_step(0, before), make_step(1, now)
    dlb(first)
    second = replace(second, label_weight=dlb.label_weight_of(second.batch))
    (loss,) = labels(second).values()
    again_BK = make_network()(first.second_BCHW).logits_BK
    both_BK = torch.cat((again_BK, second.logits_BK))
    expected = cross_entropy(both_BK, torch.cat((first.labels_B, second.labels_B)))
    assert close(loss + dlb(second)["dlb_ce"], expected)


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
    assert other.label_weight_of(second.batch) == 0.5
    expected = term(second)
    received = other(replace(second, network=make_network()))
    assert all(torch.equal(received[name], expected[name]) for name in expected)


def test_dlb_of_weight_zero_remembers_nothing() -> None:
    term = Dlb(DlbConfig(weight=0.0), CONTEXT)
    for seed in range(2):
        assert all(loss.item() == 0 for loss in term(make_step(seed)).values())
    assert term.get_extra_state() is None
    assert term.label_weight_of(make_step().batch) == 1.0
