from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.trial import TrialState

from skdtune.queue import leases, pausing, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.stored_study import StoredStudy

MakeStudy = Callable[..., StoredStudy]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)

ERROR = "RuntimeError: the kernel failed\nTraceback: in {} lines"
STATES = {EventKind.COMPLETE: TrialState.COMPLETE, EventKind.PRUNED: TrialState.PRUNED}


def claim(stored: StoredStudy) -> Claim:
    found = leases.claim(stored.engine, stored.study_id, ALICE)
    assert found is not None
    return found


def end(stored: StoredStudy, kind: EventKind, detail: str = "") -> None:
    """Claim the next trial and let it end so."""
    state = STATES.get(kind, TrialState.PRUNED if kind is EventKind.NAN else TrialState.FAIL)
    value = 0.5 if state is TrialState.COMPLETE else None
    claimed = claim(stored)
    trial_writes.finish(stored.engine, claimed, state, kind, value=value, epochs=0, detail=detail)


def fail(stored: StoredStudy, times: int = 1) -> None:
    """Let trials fail with one error; only its first line is the same."""
    for time in range(times):
        end(stored, EventKind.ERROR, ERROR.format(time))


def pauses(stored: StoredStudy, limit: int) -> bool:
    paused = pausing.pause_after_equal_errors(stored.engine, stored.study_id, limit)
    assert (pausing.paused_reason(stored.engine, stored.study_id) is not None) is paused
    return paused


def test_a_study_is_paused_with_a_reason_and_goes_on(make_study: MakeStudy) -> None:
    stored, other = make_study(), make_study(name="other")
    assert pausing.paused_reason(stored.engine, stored.study_id) is None
    pausing.pause(stored.engine, stored.study_id, "look at this")
    assert pausing.paused_reason(stored.engine, stored.study_id) == "look at this"
    assert pausing.paused_reason(other.engine, other.study_id) is None
    assert leases.claim(stored.engine, stored.study_id, ALICE) is None
    assert pausing.resume(stored.engine, stored.study_id)
    assert pausing.paused_reason(stored.engine, stored.study_id) is None
    assert not pausing.resume(stored.engine, stored.study_id)
    assert claim(stored).number == 0


def test_the_newest_reason_is_the_one_that_is_shown(make_study: MakeStudy) -> None:
    stored = make_study()
    for reason in ("first", "second"):
        pausing.pause(stored.engine, stored.study_id, reason)
    assert pausing.paused_reason(stored.engine, stored.study_id) == "second"


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_study_pauses_after_so_many_equal_errors_in_a_row(
    limit: int, make_study: MakeStudy
) -> None:
    stored = make_study()
    end(stored, EventKind.COMPLETE)
    fail(stored, limit - 1)
    assert not pauses(stored, limit)
    fail(stored)
    assert pauses(stored, limit)
    many = "trial" if limit == 1 else f"{limit} trials in a row"
    assert pausing.paused_reason(stored.engine, stored.study_id) == (
        f"{many} failed with the same error: RuntimeError: the kernel failed"
    )


def test_a_study_without_enough_trials_does_not_pause(make_study: MakeStudy) -> None:
    stored = make_study()
    assert not pauses(stored, 3)
    fail(stored, 2)
    assert not pauses(stored, 3)


@pytest.mark.parametrize(
    ("kind", "detail"),
    [
        (EventKind.COMPLETE, ""),
        (EventKind.PRUNED, ""),
        (EventKind.NAN, "the loss is NaN"),
        (EventKind.OOM, "RuntimeError: the kernel failed"),
        (EventKind.TIMEOUT, "RuntimeError: the kernel failed"),
        (EventKind.LOST, "RuntimeError: the kernel failed"),
        (EventKind.ERROR, "RuntimeError: another kernel failed"),
    ],
)
def test_a_row_of_errors_is_broken_by_any_other_end(
    kind: EventKind, detail: str, make_study: MakeStudy
) -> None:
    stored = make_study(num_trials=6)
    fail(stored, 2)
    end(stored, kind, detail)
    fail(stored, 2)
    assert not pauses(stored, 3)
    fail(stored)
    assert pauses(stored, 3)


def test_trials_of_another_study_do_not_count(make_study: MakeStudy) -> None:
    stored, other = make_study(), make_study(name="other")
    fail(stored)
    fail(other)
    assert not pauses(stored, 2)
    end(other, EventKind.COMPLETE)
    fail(stored)
    assert pauses(stored, 2)
    assert not pauses(other, 1)


def test_a_trial_that_was_given_back_has_not_ended(make_study: MakeStudy) -> None:
    stored = make_study()
    fail(stored)
    leases.release(stored.engine, claim(stored), EventKind.ERROR, 0, ERROR.format(1))
    assert not pauses(stored, 2)


def test_a_trial_that_fails_again_when_it_is_retried_counts_once(make_study: MakeStudy) -> None:
    stored = make_study()
    leases.release(stored.engine, claim(stored), EventKind.ERROR, 0, ERROR.format(1))
    fail(stored)
    assert not pauses(stored, 2)
    fail(stored)
    assert pauses(stored, 2)


@pytest.mark.parametrize("kind", [EventKind.LOST, EventKind.OOM, EventKind.PREEMPTED])
def test_what_a_trial_outlived_before_it_failed_does_not_break_the_row(
    kind: EventKind, make_study: MakeStudy
) -> None:
    stored = make_study()
    fail(stored)
    leases.release(stored.engine, claim(stored), kind)
    fail(stored)
    assert pauses(stored, 2)


def test_a_trial_in_hand_does_not_break_the_row(make_study: MakeStudy) -> None:
    stored = make_study()
    fail(stored)
    claim(stored)
    fail(stored)
    assert pauses(stored, 2)


def test_a_study_that_goes_on_pauses_again_when_the_next_trial_fails_so(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    fail(stored, 2)
    assert pauses(stored, 2)
    pausing.resume(stored.engine, stored.study_id)
    fail(stored)
    assert pauses(stored, 2)
    pausing.resume(stored.engine, stored.study_id)
    end(stored, EventKind.COMPLETE)
    assert not pauses(stored, 2)
