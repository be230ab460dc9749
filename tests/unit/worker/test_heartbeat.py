from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from skdtune.errors import StorageAwayError
from skdtune.queue import leases, patience
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.patience import Patience
from skdtune.queue.stored_study import StoredStudy
from skdtune.queue.trial_queue import TrialQueue
from skdtune.signals import SUPERVISED_VARIABLE
from skdtune.worker import heartbeat
from skdtune.worker.heartbeat import Heartbeat

MakeStudy = Callable[..., StoredStudy]
PassTime = Callable[[float], None]
Held = tuple[StoredStudy, Claim]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)
BOB = WorkerIdentity(device="cpu", token="bob", host="b", pid=22)

#: Six beats fit into one lease.
QUICK_LEASE_S = 0.06


def never() -> None:
    raise AssertionError("nobody is orphaned here")


def claim(stored: StoredStudy, worker: WorkerIdentity = ALICE) -> Claim:
    found = leases.claim(stored.engine, stored.study_id, worker)
    assert found is not None
    return found


@pytest.fixture
def held(make_study: MakeStudy) -> Held:
    stored = make_study()
    return stored, claim(stored)


def make_heartbeat(held: Held, lease_s: float = 60, calm: Patience | None = None) -> Heartbeat:
    stored, claimed = held
    return Heartbeat(TrialQueue(stored, calm, lease_s), claimed, never)


def beats(monkeypatch: pytest.MonkeyPatch, number: int) -> threading.Event:
    """Return an event that is set after so many renewals from now on."""
    done = threading.Event()
    real = leases.renew
    seen: list[bool] = []

    def counted(engine: sa.Engine, claimed: Claim) -> bool:
        seen.append(True)
        renewed = real(engine, claimed)
        if len(seen) >= number:
            done.set()
        return renewed

    monkeypatch.setattr(leases, "renew", counted)
    return done


def break_storage(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    """Let every renewal fail, as while the database is away."""

    def fails(engine: sa.Engine, claimed: Claim) -> bool:
        raise error or sa.exc.OperationalError("renew", None, Exception("server closed"))

    monkeypatch.setattr(leases, "renew", fails)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time of the process's own clock, to be changed by the test."""
    time = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: time[0])
    monkeypatch.setattr(heartbeat, "time", clock)
    monkeypatch.setattr(patience, "time", clock)
    return time


# The thread


def test_the_lease_stays_alive_while_the_trial_trains(
    held: Held, monkeypatch: pytest.MonkeyPatch, pass_time: PassTime
) -> None:
    stored, _ = held
    pass_time(1000)
    renewed = beats(monkeypatch, 2)
    with make_heartbeat(held, QUICK_LEASE_S) as beating:
        assert renewed.wait(60)
        assert not beating.lost
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] < 500


def test_the_beats_end_with_the_trial(held: Held) -> None:
    with make_heartbeat(held, QUICK_LEASE_S):
        assert [t.name for t in threading.enumerate()].count("heartbeat") == 1
    assert [t.name for t in threading.enumerate()].count("heartbeat") == 0


def test_a_database_that_hiccups_is_tried_again(
    held: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = leases.renew
    calls: list[int] = []
    recovered = threading.Event()

    def hiccup(engine: sa.Engine, claimed: Claim) -> bool:
        calls.append(len(calls))
        if len(calls) <= 3:
            raise sa.exc.OperationalError("renew", None, Exception("server closed"))
        renewed = real(engine, claimed)
        if len(calls) > 4:
            recovered.set()
        return renewed

    monkeypatch.setattr(leases, "renew", hiccup)
    with make_heartbeat(held, QUICK_LEASE_S) as beating:
        assert recovered.wait(60)
        assert not beating.lost
    assert caplog.text.count("the storage does not answer") == 1
    assert caplog.text.count("the storage answers again") == 1


def test_the_thread_outlives_an_error_that_nobody_expected(
    held: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = leases.renew
    recovered = threading.Event()
    calls: list[int] = []

    def breaks_once(engine: sa.Engine, claimed: Claim) -> bool:
        calls.append(len(calls))
        if len(calls) == 1:
            raise ZeroDivisionError
        recovered.set()
        return real(engine, claimed)

    monkeypatch.setattr(leases, "renew", breaks_once)
    with make_heartbeat(held, QUICK_LEASE_S) as beating:
        assert recovered.wait(60)
        assert not beating.lost
    assert caplog.text.count("the heartbeat failed, trying again") == 1


def test_the_thread_gives_back_what_a_dead_worker_held(
    held: Held, pass_time: PassTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, claimed = held
    other = claim(stored, BOB)
    pass_time(100)
    assert leases.renew(stored.engine, claimed)
    reaped = threading.Event()
    real = leases.reap

    def reap(*arguments: Any) -> list[int]:
        numbers = real(*arguments)
        if other.number in numbers:
            reaped.set()
        return numbers

    monkeypatch.setattr(leases, "reap", reap)
    with make_heartbeat(held, QUICK_LEASE_S) as beating:
        assert reaped.wait(60)
        assert not beating.lost
    assert not leases.renew(stored.engine, other)


# Losing a lease


def test_a_lost_lease_is_noticed_by_the_next_beat(held: Held) -> None:
    stored, claimed = held
    beating = make_heartbeat(held)
    assert beating.beat()
    leases.release(stored.engine, claimed)
    assert not beating.lost
    assert not beating.beat()
    assert beating.lost
    leases.claim(stored.engine, stored.study_id, claimed.worker)
    assert not beating.beat(), "a lease that was lost once is never taken up again"


def test_a_beat_that_gets_no_answer_is_no_loss(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating = make_heartbeat(held)
    with monkeypatch.context() as patch:
        break_storage(patch)
        with pytest.raises(StorageAwayError):
            beating.beat()
    assert not beating.lost
    assert beating.beat()


def test_whoever_was_heard_a_moment_ago_believes_that_it_holds(
    held: Held, at: list[float]
) -> None:
    stored, claimed = held
    beating = make_heartbeat(held, lease_s=60)
    leases.release(stored.engine, claimed)
    at[0] += 59
    assert beating.holds()
    assert not beating.lost


def test_whoever_was_frozen_for_as_long_as_a_lease_asks_first(held: Held, at: list[float]) -> None:
    stored, claimed = held
    beating = make_heartbeat(held, lease_s=60)
    at[0] += 61
    assert beating.holds()
    at[0] += 61
    leases.release(stored.engine, claimed)
    claim(stored, BOB)
    assert not beating.holds()
    assert beating.lost
    assert not beating.holds()


def test_while_the_storage_is_away_nobody_else_can_have_taken_the_trial(
    held: Held, at: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    beating = make_heartbeat(held, lease_s=60)
    at[0] += 100
    break_storage(monkeypatch)
    assert beating.holds()
    assert not beating.lost


def test_a_renewed_lease_is_believed_for_another_one(held: Held, at: list[float]) -> None:
    stored, claimed = held
    beating = make_heartbeat(held, lease_s=60)
    at[0] += 50
    assert beating.beat()
    leases.release(stored.engine, claimed)
    at[0] += 50
    assert beating.holds()
    at[0] += 11
    assert not beating.holds()


# Orphans


@pytest.mark.parametrize("is_away", [False, True])
def test_an_orphan_is_told_so_by_its_heartbeat(
    is_away: bool, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, claimed = held
    told = threading.Event()
    monkeypatch.setenv(SUPERVISED_VARIABLE, "1999999999")
    if is_away:
        break_storage(monkeypatch)
    with Heartbeat(TrialQueue(stored, lease_s=QUICK_LEASE_S), claimed, told.set):
        assert told.wait(60)


def test_a_heartbeat_is_of_one_attempt(held: Held) -> None:
    stored, claimed = held
    other = dataclasses.replace(claimed, attempt=2)
    assert not Heartbeat(TrialQueue(stored), other, never).beat()
