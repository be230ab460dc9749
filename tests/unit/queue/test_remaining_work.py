"""What is left to do in several studies, and their silent workers, looked at together."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.describe.presets import load_spec
from skdtune.errors import StorageAwayError
from skdtune.queue import leases, pausing, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.patience import Patience
from skdtune.queue.remaining_work import Work, read_work
from skdtune.queue.stored_study import StoredStudy, create_study, load_from, load_study
from skdtune.queue.trial_queue import TrialQueue

ALICE = WorkerIdentity(device="cpu", host="alice", pid=1)


@pytest.fixture
def two(any_url: str) -> Iterator[tuple[StoredStudy, StoredStudy]]:
    """Return two studies of three trials, over the connections of one storage."""
    for name in ("a", "b"):
        create_study(load_spec("digits-dsr", name=name, num_trials=3), storage=any_url)
    first = load_study("a", storage=any_url)
    yield first, load_from(first.storage, "b")
    first.close()


def work(stored: StoredStudy, waiting: int, held: int, paused: str | None = None) -> Work:
    name = stored.study.study_name
    return Work(name=name, lineage=stored.lineage, paused=paused, waiting=waiting, held=held)


def take(stored: StoredStudy, lease_s: float = 60.0) -> leases.Claim:
    claimed = leases.claim(stored.engine, stored.study_id, ALICE, lease_s)
    assert claimed is not None
    return claimed


def test_each_study_has_its_own_numbers(two: tuple[StoredStudy, StoredStudy]) -> None:
    a, b = two
    ended = take(a)
    trial_writes.finish(
        a.engine, ended, TrialState.COMPLETE, EventKind.COMPLETE, value=0.5, epochs=1
    )
    take(a)
    pausing.pause(b.engine, b.study_id, "a broken cable")
    # What others than workers run is in nobody's hand.
    b.study.ask()
    read = read_work(a.engine, [a.study_id, b.study_id, 10**6])
    assert read == {
        a.study_id: work(a, waiting=1, held=1),
        b.study_id: work(b, waiting=2, held=0, paused="a broken cable"),
    }
    assert not any(one.is_finished for one in read.values())
    assert read_work(a.engine, []) == {}


def test_the_silent_workers_of_all_are_found_in_one_look(
    two: tuple[StoredStudy, StoredStudy],
) -> None:
    a, b = two
    take(b)
    for stored in two:
        take(stored, lease_s=0.01)
    time.sleep(0.1)
    names = {a.study_id: "a", b.study_id: "b"}
    said = TrialQueue(a, lease_s=0.01).reap_silent_among(names, "bob")
    assert sorted(said) == [
        "a: trial 0 waits again: its worker fell silent",
        "b: trial 1 waits again: its worker fell silent",
    ]
    assert read_work(a.engine, names) == {
        a.study_id: work(a, waiting=3, held=0),
        b.study_id: work(b, waiting=2, held=1),
    }


def test_an_outage_that_one_study_met_makes_nobody_of_another_silent(
    two: tuple[StoredStudy, StoredStudy],
) -> None:
    a, b = two
    queue = TrialQueue(a, Patience(outage_s=0), lease_s=30)
    take(b, lease_s=0.01)
    time.sleep(0.1)

    def cut() -> None:
        raise sa.exc.InterfaceError("", {}, OSError("the cable is out"))

    with pytest.raises(StorageAwayError):
        queue.once.call(cut)
    assert queue.counts()[TrialState.WAITING] == 3
    assert queue.of(b).reap_silent() == []
    assert TrialQueue(b, lease_s=30).reap_silent() == [0]
