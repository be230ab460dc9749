from __future__ import annotations

import pytest
import torch
from optuna.trial import TrialState

from skdtune.describe.faults import RetriesConfig
from skdtune.errors import NonFiniteLossError
from skdtune.queue.events import EventKind
from skdtune.worker.endings import CONSEQUENCES, Ending, ending_of_error

#: What happens to a trial without ending an attempt at it.
ON_THE_WAY = {
    EventKind.CLAIMED,
    EventKind.RESUMED,
    EventKind.RESTARTED,
    EventKind.NOTED,
    EventKind.SPARED,
}


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_the_table_has_every_ending_and_nothing_else() -> None:
    assert CONSEQUENCES.keys() == set(EventKind) - ON_THE_WAY


def test_the_state_of_a_trial_follows_from_how_it_ended() -> None:
    states = {kind.value: consequence.state for kind, consequence in CONSEQUENCES.items()}
    assert states.pop("complete") is TrialState.COMPLETE
    assert states.pop("pruned") is TrialState.PRUNED
    assert states.pop("nan") is TrialState.PRUNED, "the sampler must learn from it"
    assert set(states.values()) == {TrialState.FAIL}


def test_what_a_study_has_retries_for_may_be_retried() -> None:
    """But for a lost trial, which is given back by who finds it, and ended here."""
    retried = {kind.value for kind, c in CONSEQUENCES.items() if c.may_retry}
    assert retried == RetriesConfig.model_fields.keys() - {"lost"}


def test_only_errors_of_the_same_text_pause_a_study() -> None:
    assert {kind for kind, c in CONSEQUENCES.items() if c.may_pause} == {EventKind.ERROR}


def test_all_endings_but_the_wanted_ones_leave_their_reason() -> None:
    wanted = {kind for kind, c in CONSEQUENCES.items() if not c.is_failure}
    assert wanted == {EventKind.COMPLETE, EventKind.PRUNED}


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory\nmore"),
            EventKind.OOM,
            "OutOfMemoryError: CUDA out of memory",
        ),
        (MemoryError(), EventKind.OOM, "MemoryError: "),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            EventKind.OOM,
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
        ),
        (
            ValueError("can't allocate memory"),
            EventKind.ERROR,
            "ValueError: can't allocate memory",
        ),
        (RuntimeError("  a\nb"), EventKind.ERROR, "RuntimeError: a"),
        (RuntimeError("x" * 1000), EventKind.ERROR, f"RuntimeError: {'x' * 486}"),
    ],
)
def test_an_error_is_told_in_a_line_with_its_traceback_below(
    error: Exception, kind: EventKind, reason: str
) -> None:
    ending = ending_of_error(raised(error))
    assert (ending.kind, ending.reason) == (kind, reason)
    below = ending.detail.splitlines()[1:]
    assert 2 <= len(below) <= 12
    assert any("raise error" in line for line in below)


def test_a_loss_that_is_not_finite_is_its_own_kind_and_needs_no_traceback() -> None:
    ending = ending_of_error(raised(NonFiniteLossError("the loss became nan in epoch 3")))
    assert ending == Ending(EventKind.NAN, "the loss became nan in epoch 3")
