"""The term of DSR: its weight times the formula of its source, and what it remembers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from term_steps import CONTEXT, dtypes_of, make_step
from torch import Tensor

from skdtune.methods.dsr.formulas import dsr_loss, ranked
from skdtune.methods.dsr.settings import DsrConfig
from skdtune.methods.dsr.term import Dsr


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
def test_the_loss_is_in_full_precision(dtype: torch.dtype, autocast: bool) -> None:
    dtypes = dtypes_of(Dsr(DsrConfig(), CONTEXT), dtype, autocast=autocast)
    assert set(dtypes.values()) == {torch.promote_types(dtype, torch.float32)}
