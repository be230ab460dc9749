from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from skdtune.queue import leases, trial_writes
from skdtune.queue.events import (
    EventKind,
    num_failures,
    num_finished_epochs,
    record,
    story,
)
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.stored_study import StoredStudy

MakeStudy = Callable[..., StoredStudy]
PassTime = Callable[[float], None]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)


def claim(stored: StoredStudy) -> Claim:
    found = leases.claim(stored.engine, stored.study_id, ALICE)
    assert found is not None
    return found


def tell(stored: StoredStudy, trial_id: int, kind: EventKind, **details: Any) -> None:
    with stored.engine.begin() as connection:
        record(
            connection,
            study_id=details.pop("study_id", stored.study_id),
            trial_id=trial_id,
            attempt=1,
            worker=details.pop("worker", "a"),
            kind=kind,
            **details,
        )


def test_a_story_is_told_from_its_beginning(make_study: MakeStudy, pass_time: PassTime) -> None:
    stored = make_study()
    first, other = claim(stored), claim(stored)
    pass_time(10)
    trial_writes.write_note(stored.engine, first, EventKind.NOTED, 1, "a note")
    leases.release(stored.engine, other)
    pass_time(10)
    leases.release(stored.engine, first, epochs=2, detail="asked to leave")
    told = story(stored.engine, stored.study_id, first.trial_id)
    assert [event.kind for event in told] == ["claimed", "noted", "preempted"]
    assert [event.epochs for event in told] == [0, 1, 2]
    assert [event.detail for event in told] == ["", "a note", "asked to leave"]
    assert told[0].at < told[1].at < told[2].at


def test_events_of_another_study_are_not_told(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    tell(stored, claimed.trial_id, EventKind.LOST, study_id=stored.study_id + 1)
    told = story(stored.engine, stored.study_id, claimed.trial_id)
    assert [event.kind for event in told] == ["claimed"]
    failures = num_failures(stored.engine, stored.study_id, claimed.trial_id, EventKind.LOST)
    assert failures == 0


def test_a_story_that_nobody_wrote_is_empty(make_study: MakeStudy) -> None:
    stored = make_study()
    assert story(stored.engine, stored.study_id, 10_000) == []


def test_a_worker_with_a_long_name_is_cut_and_a_long_detail_is_not(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    tell(stored, 1, EventKind.ERROR, worker="w" * 5000, detail="d" * 50_000)
    (event,) = story(stored.engine, stored.study_id, 1)
    assert (len(event.worker), len(event.detail)) == (400, 50_000)


@pytest.mark.parametrize("kind", [EventKind.OOM, EventKind.ERROR, EventKind.TIMEOUT])
def test_failures_are_counted_by_kind(kind: EventKind, make_study: MakeStudy) -> None:
    stored = make_study()
    for number in range(3):
        tell(stored, 1, kind, epochs=number)
    tell(stored, 1, EventKind.PREEMPTED)
    tell(stored, 2, kind)
    assert num_failures(stored.engine, stored.study_id, 1, kind) == 3
    assert num_failures(stored.engine, stored.study_id, 1, EventKind.NAN) == 0


def test_losses_are_counted_since_the_trial_made_progress(make_study: MakeStudy) -> None:
    stored = make_study()

    def losses() -> int:
        return num_failures(stored.engine, stored.study_id, 1, EventKind.LOST)

    counted = []
    for epochs in (0, 0, 1, 3, 3, 3, 4):
        tell(stored, 1, EventKind.CLAIMED)
        tell(stored, 1, EventKind.LOST, epochs=epochs)
        counted.append(losses())
    assert counted == [1, 2, 1, 1, 2, 3, 1]
    tell(stored, 1, EventKind.PREEMPTED, epochs=6)
    assert losses() == 0, "an attempt that got further and was asked to leave was progress"


def test_the_epochs_that_the_storage_knows_are_counted(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed, other = claim(stored), claim(stored)
    for epoch in range(4):
        trial_writes.write_report(stored.engine, claimed, epoch, 0.5)
    with stored.engine.connect() as connection:
        assert num_finished_epochs(connection, claimed.trial_id) == 4
        assert num_finished_epochs(connection, other.trial_id) == 0


def test_only_the_event_that_a_trial_ended_with_is_final(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    leases.release(stored.engine, claimed, EventKind.ERROR, detail="first")
    again = claim(stored)
    trial_writes.finish(
        stored.engine, again, TrialState.FAIL, EventKind.ERROR, value=None, epochs=0
    )
    told = story(stored.engine, claimed.study_id, claimed.trial_id)
    assert [(event.kind, event.final) for event in told] == [
        ("claimed", False),
        ("error", False),
        ("claimed", False),
        ("error", True),
    ]


def test_losses_count_although_a_trial_had_got_further_once(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    for epochs in (10, 3, 3, 3):
        with stored.engine.begin() as connection:
            leases.note(connection, claimed, EventKind.LOST, epochs)
    key = (stored.engine, claimed.study_id, claimed.trial_id)
    assert num_failures(*key, EventKind.LOST) == 4


def test_a_message_of_any_bytes_can_be_stored(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    with stored.engine.begin() as connection:
        leases.note(connection, claimed, EventKind.NOTED, 0, "a\0b\udc80c")
    told = story(stored.engine, claimed.study_id, claimed.trial_id)
    assert told[-1].detail == "ab?c"
