from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.errors import LeaseLostError, StorageAwayError, StudyError
from skdtune.queue import leases, patience, schema, silence, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.patience import Patience
from skdtune.queue.stored_study import StoredStudy
from skdtune.queue.trial_queue import TrialQueue

MakeStudy = Callable[..., StoredStudy]
PassTime = Callable[[float], None]
Held = tuple[StoredStudy, Claim]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)


@pytest.fixture
def held(make_study: MakeStudy) -> Held:
    stored = make_study()
    claim = TrialQueue(stored).claim(ALICE)
    assert claim is not None
    return stored, claim


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time of the process's own clock, to be changed by the test."""
    time = [1000.0]
    for module in (patience, silence):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time[0]))
    return time


def failing(times: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """Let a transaction fail some times, as while the database is away."""
    left = iter(range(times))

    def transaction(*args: Any, **settings: Any) -> Any:
        if next(left, None) is not None:
            raise sa.exc.OperationalError("SELECT", None, Exception("server closed"))
        return real(*args, **settings)

    return transaction


def test_a_transaction_is_tried_again_while_the_storage_is_away(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, claim = held
    pauses: list[float] = []
    queue = TrialQueue(stored, Patience(sleep=pauses.append))
    monkeypatch.setattr(trial_writes, "write_report", failing(2, trial_writes.write_report))
    queue.report(claim, 0, 0.5)
    assert len(pauses) == 2
    assert stored.storage.get_trial(claim.trial_id).intermediate_values == {0: 0.5}


def test_who_does_not_wait_is_told_at_the_first_failure(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, claim = held
    queue = TrialQueue(stored, Patience(sleep=lambda _: pytest.fail("nobody waits here")))
    monkeypatch.setattr(trial_writes, "write_report", failing(1, trial_writes.write_report))
    with pytest.raises(StorageAwayError):
        queue.once.report(claim, 0, 0.5)
    assert queue.patience.away_s > 0, "both views of a queue know of the outage"
    queue.report(claim, 0, 0.5)
    assert queue.once.patience.away_s == 0


def test_the_way_of_a_trial_through_its_queue(held: Held) -> None:
    stored, claim = held
    queue = TrialQueue(stored)
    assert queue.renew(claim)
    assert [row["number"] for row in queue.holders()] == [claim.number]
    queue.write_attributes(claim, {"device": "cpu"}, {"skdtune:judged_epochs": 0})
    queue.report(claim, 0, 0.1)
    queue.note(claim, EventKind.NOTED, 1, "a disk was full")
    assert queue.release(claim)
    again = queue.claim(ALICE)
    assert again is not None
    assert (again.number, again.attempt) == (claim.number, 2)
    with pytest.raises(LeaseLostError):
        queue.report(claim, 1, 0.2)
    assert queue.num_failures(again, EventKind.PREEMPTED) == 1
    queue.rewind(again, [0.3], (), EventKind.RESUMED, "after epoch 1")
    queue.finish(
        again,
        TrialState.COMPLETE,
        EventKind.COMPLETE,
        value=0.4,
        epochs=2,
        detail="",
        user={"seed": 1},
        system={},
        unstored={1: 0.4},
    )
    assert queue.ended([0, 1, 2]) == [claim.number]
    assert queue.counts()[TrialState.COMPLETE] == 1
    trial = stored.storage.get_trial(claim.trial_id)
    assert (trial.value, trial.intermediate_values) == (0.4, {0: 0.3, 1: 0.4})
    assert trial.user_attrs == {"device": "cpu", "seed": 1}


def test_a_queue_is_of_one_study(make_study: MakeStudy) -> None:
    first, second = make_study(name="first"), make_study(name="second")
    claim = TrialQueue(first).claim(ALICE)
    assert claim is not None
    assert claim.study_id == first.study_id
    assert TrialQueue(second).holders() == []
    assert TrialQueue(first).find_lineage() != TrialQueue(second).find_lineage()


def test_a_trial_of_another_study_under_the_same_key_is_not_taken(make_study: MakeStudy) -> None:
    """SQLite gives the key of a deleted study out again; here another token stands for that."""
    stored = make_study()
    queue, own = TrialQueue(stored), schema.own_studies
    with stored.engine.begin() as connection:
        connection.execute(sa.update(own).values(lineage="anew"))
    with pytest.raises(StudyError, match="'tiny' was made anew while this worker ran"):
        queue.claim(ALICE)
    assert queue.counts()[TrialState.RUNNING] == 0
    stored.storage.delete_study(stored.study_id)
    with pytest.raises(StudyError, match="'tiny' was deleted while this worker ran"):
        queue.claim(ALICE)


def test_no_caller_names_an_engine_or_a_study() -> None:
    public = {n: m for n, m in inspect.getmembers(TrialQueue, inspect.isfunction) if n[0] != "_"}
    assert {"claim", "report", "finish"} <= public.keys()
    for method in public.values():
        assert not {"engine", "study_id"} & inspect.signature(method).parameters.keys()


def test_silent_workers_are_reaped_and_named(
    held: Held, pass_time: PassTime, caplog: pytest.LogCaptureFixture
) -> None:
    stored, _ = held
    pass_time(100)
    assert TrialQueue(stored).reap_silent("me") == [0]
    assert "trial 0 waits again: its worker fell silent" in caplog.text


def test_after_an_outage_nobody_is_taken_for_dead_for_as_long_as_a_lease(
    held: Held, pass_time: PassTime, at: list[float]
) -> None:
    stored, _ = held
    pass_time(100)
    queue = TrialQueue(stored)

    def fails() -> Any:
        raise sa.exc.OperationalError("renew", None, Exception("server closed"))

    with pytest.raises(StorageAwayError):
        queue.once.call(fails)
    assert queue.reap_silent() == []
    queue.once.call(lambda: None)
    at[0] += 59
    assert queue.reap_silent() == []
    at[0] += 2
    assert queue.reap_silent() == [0]
    assert leases.counts(stored.engine, stored.study_id)[TrialState.WAITING] == 5


def test_after_a_clock_was_set_ahead_nobody_is_taken_for_dead_for_as_long_as_a_lease(
    held: Held, pass_time: PassTime, at: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    stored, living = held
    queue = TrialQueue(stored)
    dead = queue.claim(dataclasses.replace(ALICE, token="bob"))
    assert dead is not None

    def pass_real_time(seconds: float) -> None:
        pass_time(seconds)
        at[0] += seconds

    assert queue.reap_silent() == []
    pass_real_time(20)
    assert queue.reap_silent() == []
    pass_time(3600)
    assert queue.reap_silent() == []
    assert "the database's clock went 3600 s ahead at once" in caplog.text
    pass_real_time(40)
    assert queue.renew(living)
    # Both views of a queue know of it.
    assert queue.once.reap_silent() == []
    pass_real_time(25)
    assert queue.reap_silent() == [dead.number]
    assert queue.renew(living)
    # Back again, and every lease begins anew.
    pass_time(-3600)
    assert queue.reap_silent() == []
    pass_real_time(50)
    assert queue.reap_silent() == []
    pass_real_time(15)
    assert queue.reap_silent() == [living.number]
    assert caplog.text.count("ahead at once") == 1


def test_after_a_freeze_of_the_database_nobody_is_taken_for_dead_for_as_long_as_a_lease(
    held: Held, pass_time: PassTime, at: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, living = held
    queue = TrialQueue(stored)
    real = leases.renew

    def pass_real_time(seconds: float) -> None:
        pass_time(seconds)
        at[0] += seconds

    def answered_late(*arguments: Any) -> bool:
        pass_real_time(100)
        return real(*arguments)

    assert queue.reap_silent() == []
    other = queue.claim(dataclasses.replace(ALICE, token="bob"))
    with monkeypatch.context() as patch:
        patch.setattr(leases, "renew", answered_late)
        assert queue.renew(living)
    assert queue.reap_silent() == [], "the other one waited for the same answer"
    pass_real_time(59)
    assert queue.renew(living)
    assert queue.reap_silent() == []
    pass_real_time(2)
    assert queue.reap_silent() == [other.number if other else None]


def test_a_freeze_in_the_middle_of_a_look_makes_nobody_silent(
    held: Held, pass_time: PassTime, at: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, living = held
    queue = TrialQueue(stored)
    real = leases.reap

    def answered_late(*arguments: Any) -> list[int]:
        pass_time(100)
        at[0] += 100
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(leases, "reap", answered_late)
        assert queue.reap_silent() == []
    assert queue.reap_silent() == []
    assert queue.renew(living)
