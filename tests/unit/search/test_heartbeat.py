from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from skdtune.search import leases, schema
from skdtune.search.heartbeat import SUPERVISED_VARIABLE, Heartbeat, is_orphaned
from skdtune.search.leases import WorkerIdentity
from skdtune.search.study import StoredStudy

MakeStudy = Callable[..., StoredStudy]

#: Six beats fit into one lease.
QUICK_LEASE_S = 0.06


def never() -> None:
    raise AssertionError("nobody is orphaned here")


@pytest.fixture
def held(make_study: MakeStudy) -> tuple[StoredStudy, int, str]:
    stored = make_study()
    worker = WorkerIdentity(device="cpu")
    claim = leases.claim(stored.engine, stored.study_id, worker)
    assert claim is not None
    return stored, claim.trial_id, worker.token


def age(stored: StoredStudy, seconds: float) -> None:
    with stored.engine.begin() as connection:
        connection.execute(
            sa.update(schema.leases).values(renewed_at=schema.leases.c.renewed_at - seconds)
        )


def beats(monkeypatch: pytest.MonkeyPatch, number: int) -> threading.Event:
    """Return an event that is set after so many renewals from now on."""
    done = threading.Event()
    real = leases.renew
    seen: list[bool] = []

    def counted(engine: sa.Engine, trial_id: int, token: str) -> bool:
        seen.append(True)
        renewed = real(engine, trial_id, token)
        if len(seen) >= number:
            done.set()
        return renewed

    monkeypatch.setattr("skdtune.search.heartbeat.renew", counted)
    return done


def test_the_lease_stays_alive_while_the_trial_trains(
    held: tuple[StoredStudy, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, trial_id, token = held
    age(stored, 1000)
    renewed = beats(monkeypatch, 1)
    with Heartbeat(stored.engine, trial_id, token, never, QUICK_LEASE_S) as beating:
        assert renewed.wait(30)
        assert not beating.lost
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] < 500


def test_the_beats_end_with_the_trial(held: tuple[StoredStudy, int, str]) -> None:
    stored, trial_id, token = held
    with Heartbeat(stored.engine, trial_id, token, never, QUICK_LEASE_S):
        assert [t.name for t in threading.enumerate()].count("heartbeat") == 1
    assert [t.name for t in threading.enumerate()].count("heartbeat") == 0


def test_a_lost_lease_is_noticed_by_the_next_beat(held: tuple[StoredStudy, int, str]) -> None:
    stored, trial_id, token = held
    beating = Heartbeat(stored.engine, trial_id, token, never)
    assert beating.beat()
    leases.release(stored.engine, trial_id, token)
    assert not beating.lost
    assert not beating.beat()
    assert beating.lost
    leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu", token=token))
    assert not beating.beat(), "a lease that was lost once is never taken up again"


def test_a_database_that_hiccups_is_tried_again(
    held: tuple[StoredStudy, int, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stored, trial_id, token = held
    real = leases.renew
    calls: list[int] = []
    recovered = threading.Event()

    def hiccup(engine: sa.Engine, trial_id: int, token: str) -> bool:
        calls.append(len(calls))
        if len(calls) <= 3:
            raise sa.exc.OperationalError("renew", None, Exception("server closed"))
        renewed = real(engine, trial_id, token)
        recovered.set()
        return renewed

    monkeypatch.setattr("skdtune.search.heartbeat.renew", hiccup)
    with Heartbeat(stored.engine, trial_id, token, never, QUICK_LEASE_S) as beating:
        assert recovered.wait(30)
        assert not beating.lost
    assert caplog.text.count("heartbeat failed, trying again: OperationalError") == 3


@pytest.mark.parametrize(
    ("supervisor", "expected"),
    [(None, False), ("", False), (str(os.getppid()), False), ("1999999999", True)],
)
def test_a_process_is_orphaned_when_its_supervisor_is_not_its_parent(
    supervisor: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if supervisor is not None:
        monkeypatch.setenv(SUPERVISED_VARIABLE, supervisor)
    assert is_orphaned() is expected


def test_an_orphan_is_told_so_by_its_heartbeat(
    held: tuple[StoredStudy, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, trial_id, token = held
    told = threading.Event()
    monkeypatch.setenv(SUPERVISED_VARIABLE, "1999999999")
    with Heartbeat(stored.engine, trial_id, token, told.set, QUICK_LEASE_S):
        assert told.wait(30)
