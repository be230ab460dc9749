"""The term of CS-KD: its weight times the formula of its source."""

from __future__ import annotations

import torch
from term_steps import CONTEXT, close, make_network, make_step

from skdtune.methods.cs_kd.settings import CsKdConfig
from skdtune.methods.cs_kd.term import CsKd
from skdtune.methods.functional import distillation_kl


def test_all_is_left_to_the_labels() -> None:
    assert CsKd(CsKdConfig(weight=3.0), CONTEXT).label_weight == 1.0


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
