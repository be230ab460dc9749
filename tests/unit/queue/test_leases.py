from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.describe.space import sample
from skdtune.describe.spec import StudySpec
from skdtune.errors import LeaseLostError
from skdtune.queue import leases, pausing, schema, trial_writes
from skdtune.queue.events import EventKind, story
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.stored_study import StoredStudy, create_study, load_study

MakeStudy = Callable[..., StoredStudy]
PassTime = Callable[[float], None]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)
BOB = WorkerIdentity(device="cuda:0", token="bob", host="b", pid=22)

on_postgres = pytest.mark.parametrize("ready_url", ["postgres"], indirect=True)


def claim(stored: StoredStudy, worker: WorkerIdentity = ALICE, lease_s: float = 60) -> Claim:
    found = leases.claim(stored.engine, stored.study_id, worker, lease_s)
    assert found is not None
    return found


def states(stored: StoredStudy) -> list[str]:
    return [trial.state.name for trial in stored.study.get_trials()]


def kinds(stored: StoredStudy, claimed: Claim) -> list[str]:
    return [event.kind for event in story(stored.engine, claimed.study_id, claimed.trial_id)]


def leased(stored: StoredStudy) -> list[int]:
    with stored.engine.connect() as connection:
        return list(
            connection.scalars(
                sa.select(schema.leases.c.trial_id).order_by(schema.leases.c.trial_id)
            )
        )


def owner(stored: StoredStudy, claimed: Claim) -> str | None:
    with stored.engine.connect() as connection:
        return connection.scalar(
            sa.select(schema.leases.c.owner).where(schema.leases.c.trial_id == claimed.trial_id)
        )


def end(stored: StoredStudy, claimed: Claim, state: TrialState) -> None:
    """End a trial from outside, as a person does with plain Optuna."""
    values = [0.5] if state is TrialState.COMPLETE else None
    stored.storage.set_trial_state_values(claimed.trial_id, state, values)


def mark(connection: sa.Connection, claimed: Claim, value: str) -> None:
    """Write something about a trial within a transaction."""
    connection.execute(
        sa.insert(schema.trial_user_attributes).values(
            trial_id=claimed.trial_id, key=value, value_json="1"
        )
    )


def marks(stored: StoredStudy) -> set[str]:
    return {key for trial in stored.study.get_trials() for key in trial.user_attrs}


def in_another_thread(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(work).result(timeout=120)


# Taking a trial


def test_trials_are_claimed_once_each_in_their_order(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=3)
    claims = [claim(stored, worker) for worker in (ALICE, BOB, ALICE)]
    assert [c.number for c in claims] == [0, 1, 2]
    assert [c.attempt for c in claims] == [1, 1, 1]
    assert [c.worker for c in claims] == [ALICE, BOB, ALICE]
    assert len({c.trial_id for c in claims}) == 3
    assert leases.claim(stored.engine, stored.study_id, BOB) is None
    assert states(stored) == ["RUNNING"] * 3
    assert all(trial.datetime_start is not None for trial in stored.study.get_trials())


def test_a_claim_takes_no_trial_of_another_study(make_study: MakeStudy) -> None:
    first, second = make_study(num_trials=1), make_study(name="other", num_trials=1)
    claim(first)
    assert leases.claim(first.engine, first.study_id, BOB) is None
    assert states(second) == ["WAITING"]
    assert claim(second).number == 0


def test_a_paused_study_gives_no_trial_while_those_in_hand_go_on(make_study: MakeStudy) -> None:
    stored, other = make_study(), make_study(name="other")
    in_hand = claim(stored)
    pausing.pause(stored.engine, stored.study_id, "look at this")
    assert leases.claim(stored.engine, stored.study_id, BOB) is None
    assert leases.renew(stored.engine, in_hand)
    assert claim(other).number == 0
    pausing.resume(stored.engine, stored.study_id)
    assert claim(stored).number == 1


def test_the_first_start_of_a_trial_is_the_one_that_is_kept(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    started = stored.study.get_trials()[0].datetime_start
    leases.release(stored.engine, claimed)
    claim(stored, BOB)
    assert stored.study.get_trials()[0].datetime_start == started


def test_a_claim_is_told_in_the_story_of_its_trial(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored, BOB)
    (event,) = story(stored.engine, stored.study_id, claimed.trial_id)
    assert (event.kind, event.attempt, event.worker) == ("claimed", 1, "b:22 (cuda:0)")


@pytest.mark.parametrize("step", ["claim", "release", "reap"])
def test_what_cannot_be_told_does_not_happen(
    step: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, pass_time: PassTime
) -> None:
    stored = make_study()
    claimed = None if step == "claim" else claim(stored)
    before = (states(stored), leased(stored), leases.holders(stored.engine, stored.study_id))
    pass_time(1000)

    def fails(*arguments: Any) -> None:
        raise RuntimeError("the disk is full")

    steps: dict[str, Callable[[], object]] = {
        "claim": lambda: leases.claim(stored.engine, stored.study_id, ALICE),
        "release": lambda: claimed and leases.release(stored.engine, claimed),
        "reap": lambda: leases.reap(stored.engine),
    }
    with monkeypatch.context() as patch:
        patch.setattr(leases, "note", fails)
        with pytest.raises(RuntimeError, match="the disk is full"):
            steps[step]()
    pass_time(-1000)
    holders = leases.holders(stored.engine, stored.study_id)
    assert (states(stored), leased(stored)) == before[:2]
    assert [h["trial_id"] for h in holders] == [h["trial_id"] for h in before[2]]


# Staying alive


def test_only_the_owner_renews_a_lease(make_study: MakeStudy, pass_time: PassTime) -> None:
    stored = make_study()
    claimed = claim(stored)
    pass_time(100)
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] >= 100
    assert not leases.renew(stored.engine, dataclasses.replace(claimed, worker=BOB))
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] >= 100
    assert leases.renew(stored.engine, claimed)
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] < 50
    assert leases.holders(stored.engine, stored.study_id)[0]["held_s"] >= 100


def test_an_earlier_attempt_of_the_same_worker_holds_nothing(make_study: MakeStudy) -> None:
    stored = make_study()
    earlier = claim(stored)
    leases.release(stored.engine, earlier)
    later = claim(stored)
    assert (later.trial_id, later.worker) == (earlier.trial_id, earlier.worker)
    assert not leases.renew(stored.engine, earlier)
    assert not leases.release(stored.engine, earlier)
    assert leases.renew(stored.engine, later)


def test_a_lost_lease_can_neither_be_renewed_nor_released(
    make_study: MakeStudy, pass_time: PassTime
) -> None:
    stored = make_study()
    claimed = claim(stored)
    pass_time(100)
    leases.reap(stored.engine, stored.study_id)
    assert not leases.renew(stored.engine, claimed)
    assert claim(stored, BOB).trial_id == claimed.trial_id
    assert not leases.renew(stored.engine, claimed)
    assert not leases.release(stored.engine, claimed)
    assert states(stored)[0] == "RUNNING"
    assert owner(stored, claimed) == BOB.token


# Writing within the fence


def test_what_the_owner_writes_is_kept_and_renews_its_lease(
    make_study: MakeStudy, pass_time: PassTime
) -> None:
    stored = make_study()
    claimed = claim(stored)
    pass_time(100)
    with leases.owned(stored.engine, claimed) as connection:
        mark(connection, claimed, "mine")
    assert marks(stored) == {"mine"}
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] < 50


def test_an_error_within_the_fence_leaves_nothing(
    make_study: MakeStudy, pass_time: PassTime
) -> None:
    stored = make_study()
    claimed = claim(stored)
    pass_time(100)

    def fail_half_way() -> None:
        with leases.owned(stored.engine, claimed) as connection:
            mark(connection, claimed, "mine")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert marks(stored) == set()
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] >= 100


def given_back(stored: StoredStudy, claimed: Claim) -> None:
    leases.release(stored.engine, claimed)


def taken_over(stored: StoredStudy, claimed: Claim) -> None:
    leases.release(stored.engine, claimed)
    assert claim(stored, BOB).trial_id == claimed.trial_id


def taken_again_by_the_same_worker(stored: StoredStudy, claimed: Claim) -> None:
    leases.release(stored.engine, claimed)
    assert claim(stored, claimed.worker).trial_id == claimed.trial_id


def finished_by_its_owner(stored: StoredStudy, claimed: Claim) -> None:
    trial_writes.finish(
        stored.engine, claimed, TrialState.PRUNED, EventKind.PRUNED, value=None, epochs=0
    )


def ended_from_outside(stored: StoredStudy, claimed: Claim) -> None:
    end(stored, claimed, TrialState.FAIL)


def study_deleted(stored: StoredStudy, claimed: Claim) -> None:
    optuna.delete_study(study_name=stored.study.study_name, storage=stored.storage)


def key_of_another_study(stored: StoredStudy, claimed: Claim) -> None:
    """Let the trial belong to another study, as a key that SQLite gave out again does."""
    with stored.engine.begin() as connection:
        other = connection.execute(sa.insert(schema.studies).values(study_name="another"))
        (study_id,) = other.inserted_primary_key or (0,)
        connection.execute(
            sa.update(schema.trials)
            .where(schema.trials.c.trial_id == claimed.trial_id)
            .values(study_id=study_id, number=1000)
        )


LOSSES = [
    given_back,
    taken_over,
    taken_again_by_the_same_worker,
    finished_by_its_owner,
    ended_from_outside,
    study_deleted,
    key_of_another_study,
]


@pytest.mark.parametrize("loss", LOSSES)
def test_what_a_former_owner_writes_is_rolled_back(
    loss: Callable[[StoredStudy, Claim], None], make_study: MakeStudy
) -> None:
    stored = make_study()
    claimed = claim(stored)
    loss(stored, claimed)
    with (
        pytest.raises(LeaseLostError),
        leases.owned(stored.engine, claimed) as connection,
    ):
        mark(connection, claimed, "too late")
    with stored.engine.connect() as connection:
        found = connection.scalars(sa.select(schema.trial_user_attributes.c.key))
        assert "too late" not in list(found)


@on_postgres
def test_a_trial_that_is_taken_over_while_its_owner_writes_keeps_nothing_of_it(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    claimed = claim(stored)

    def write_slowly() -> None:
        with leases.owned(stored.engine, claimed) as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(schema.leases)) == 1
            in_another_thread(lambda: taken_over(stored, claimed))
            mark(connection, claimed, "too late")

    with pytest.raises(LeaseLostError):
        write_slowly()
    assert marks(stored) == set()
    assert owner(stored, claimed) == BOB.token


# Giving a trial back


def test_a_released_trial_waits_again_and_counts_its_attempts(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    assert leases.release(stored.engine, claimed)
    assert states(stored)[0] == "WAITING"
    assert owner(stored, claimed) is None
    again = claim(stored, BOB)
    assert (again.trial_id, again.number, again.attempt) == (claimed.trial_id, 0, 2)
    assert owner(stored, again) == BOB.token


@pytest.mark.parametrize("kind", [EventKind.PREEMPTED, EventKind.OOM, EventKind.ERROR])
def test_a_release_says_why_in_the_story_of_its_trial(
    kind: EventKind, make_study: MakeStudy
) -> None:
    stored = make_study()
    claimed = claim(stored)
    assert leases.release(stored.engine, claimed, kind, 3, "because")
    *_, event = story(stored.engine, stored.study_id, claimed.trial_id)
    told = (event.kind, event.attempt, event.epochs, event.detail, event.worker)
    assert told == (kind.value, 1, 3, "because", str(ALICE))


def test_only_the_owner_releases_a_trial_and_only_once(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    assert not leases.release(stored.engine, dataclasses.replace(claimed, worker=BOB))
    assert not leases.release(stored.engine, dataclasses.replace(claimed, attempt=2))
    assert states(stored)[0] == "RUNNING"
    assert leases.release(stored.engine, claimed)
    assert not leases.release(stored.engine, claimed)
    assert kinds(stored, claimed) == ["claimed", "preempted"]


def test_a_release_and_a_reap_at_once_do_not_lock_each_other_out(
    postgres_url: str, make_spec: Callable[..., StudySpec]
) -> None:
    create_study(make_spec(), storage=postgres_url)
    with contextlib.closing(load_study("tiny", storage=postgres_url)) as stored:
        claimed = claim(stored)
        released: list[bool] = []

        def release() -> None:
            released.append(leases.release(stored.engine, claimed))

        thread = threading.Thread(target=release)
        trial = schema.trials.c.trial_id == claimed.trial_id
        # What a reap does, one statement after the other.
        with stored.engine.begin() as connection:
            connection.execute(sa.select(schema.trials).where(trial).with_for_update())
            thread.start()
            wait_for_a_waiting_lock(connection)
            connection.execute(sa.update(schema.leases).values(owner=None))
            connection.execute(sa.update(schema.trials).where(trial).values(state="WAITING"))
        thread.join(60)
        assert released == [False]
        assert states(stored)[0] == "WAITING"


def wait_for_a_waiting_lock(connection: sa.Connection) -> None:
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while not connection.scalar(waiting):
        pass


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_a_finished_trial_does_not_come_back_by_a_release(
    state: TrialState, make_study: MakeStudy
) -> None:
    stored = make_study()
    claimed = claim(stored)
    end(stored, claimed, state)
    assert not leases.release(stored.engine, claimed)
    assert states(stored)[0] == state.name


def test_a_release_of_a_finished_trial_is_not_told_as_if_it_had_happened(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    claimed = claim(stored)
    end(stored, claimed, TrialState.FAIL)
    assert not leases.release(stored.engine, claimed)
    assert kinds(stored, claimed) == ["claimed"]


# Reaping


def test_every_lease_is_as_long_as_its_own_claim_said(
    make_study: MakeStudy, pass_time: PassTime
) -> None:
    stored = make_study()
    short, long = claim(stored, ALICE, lease_s=50), claim(stored, BOB, lease_s=200)
    pass_time(40)
    assert leases.reap(stored.engine, stored.study_id) == []
    pass_time(60)
    assert leases.reap(stored.engine, stored.study_id) == [short.number]
    assert states(stored)[:2] == ["WAITING", "RUNNING"]
    assert (owner(stored, short), owner(stored, long)) == (None, BOB.token)
    assert leases.reap(stored.engine, stored.study_id) == []
    pass_time(110)
    assert leases.reap(stored.engine, stored.study_id) == [long.number]


def test_a_later_attempt_has_a_lease_of_its_own_length(
    make_study: MakeStudy, pass_time: PassTime
) -> None:
    stored = make_study()
    leases.release(stored.engine, claim(stored, ALICE, lease_s=50))
    claim(stored, BOB, lease_s=500)
    pass_time(100)
    assert leases.reap(stored.engine, stored.study_id) == []


def test_the_usual_lease_is_a_minute(make_study: MakeStudy, pass_time: PassTime) -> None:
    stored = make_study()
    assert leases.claim(stored.engine, stored.study_id, ALICE) is not None
    pass_time(30)
    assert leases.reap(stored.engine, stored.study_id) == []
    pass_time(35)
    assert leases.reap(stored.engine, stored.study_id) == [0]


def test_the_length_of_a_lease_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert leases.lease_seconds() == 60
    monkeypatch.setenv("SKDTUNE_LEASE_SECONDS", "12.5")
    assert leases.lease_seconds() == 12.5


def test_a_renewed_lease_is_not_reaped(make_study: MakeStudy, pass_time: PassTime) -> None:
    stored = make_study()
    claimed = claim(stored)
    for _ in range(3):
        pass_time(40)
        assert leases.renew(stored.engine, claimed)
        assert leases.reap(stored.engine, stored.study_id) == []


def test_a_loss_is_told_with_the_epochs_that_the_storage_knows(
    make_study: MakeStudy, pass_time: PassTime
) -> None:
    stored = make_study()
    claimed = claim(stored)
    for epoch in range(3):
        trial_writes.write_report(stored.engine, claimed, epoch, 0.5)
    pass_time(100)
    leases.reap(stored.engine, stored.study_id, by="bob")
    *_, event = story(stored.engine, stored.study_id, claimed.trial_id)
    assert (event.kind, event.attempt, event.epochs) == ("lost", 1, 3)
    assert (event.worker, event.detail) == (str(ALICE), "its worker fell silent, said bob")


def test_a_reaped_trial_keeps_number_parameters_curve_and_rung_marks(
    make_study: MakeStudy, pass_time: PassTime
) -> None:
    stored = make_study()
    claimed = claim(stored)
    stored.study.get_trials()
    trial = optuna.Trial(stored.study, claimed.trial_id)
    params = sample(stored.spec.search, trial)
    trial.report(0.25, 0)
    trial.report(0.5, 1)
    trial.set_user_attr("seed", 7)
    stored.storage.set_trial_system_attr(claimed.trial_id, "completed_rung_0", 0.25)
    pass_time(100)
    assert leases.reap(stored.engine, stored.study_id) == [0]
    (waiting, *others) = stored.study.get_trials()
    assert len(others) == stored.spec.num_trials - 1
    assert waiting.state is TrialState.WAITING
    again = claim(stored, BOB)
    assert (again.trial_id, again.number, again.attempt) == (claimed.trial_id, 0, 2)
    frozen = stored.study.get_trials()[0]
    assert frozen.params == params
    assert frozen.intermediate_values == {0: 0.25, 1: 0.5}
    assert frozen.user_attrs["seed"] == 7
    assert frozen.system_attrs["completed_rung_0"] == 0.25
    stored.study.get_trials()
    resumed = optuna.Trial(stored.study, again.trial_id)
    assert sample(stored.spec.search, resumed) == params


def test_a_running_trial_whose_lease_nobody_owns_is_reaped(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    with stored.engine.begin() as connection:
        connection.execute(sa.update(schema.leases).values(owner=None))
    assert leases.reap(stored.engine, stored.study_id) == [claimed.number]


def test_reaping_one_study_leaves_the_others_alone(
    make_study: MakeStudy, pass_time: PassTime
) -> None:
    first, second = make_study(), make_study(name="other")
    claim(first)
    claim(second)
    pass_time(100)
    assert leases.reap(first.engine, first.study_id) == [0]
    assert states(second)[0] == "RUNNING"


def test_reaping_without_a_study_looks_at_all(make_study: MakeStudy, pass_time: PassTime) -> None:
    first, second = make_study(), make_study(name="other")
    claim(first)
    claim(second)
    pass_time(100)
    assert leases.reap(first.engine) == [0, 0]
    assert states(first)[0] == states(second)[0] == "WAITING"


def test_the_trials_of_a_dead_worker_come_back_at_once_and_nobody_elses(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    # Containers: one host name for all, and each has a process 1.
    first, second = (
        WorkerIdentity(device="cpu", token=token, host="worker", pid=1) for token in ("1st", "2nd")
    )
    dead, neighbour = claim(stored, first), claim(stored, second)
    (given_back,) = leases.reap_worker(stored.engine, stored.study_id, first.token)
    assert (given_back.number, given_back.attempt) == (0, 1)
    assert str(given_back.worker) == str(first)
    assert states(stored)[:2] == ["WAITING", "RUNNING"]
    assert (owner(stored, dead), owner(stored, neighbour)) == (None, second.token)
    assert leases.reap_worker(stored.engine, stored.study_id, first.token) == []
    *_, event = story(stored.engine, stored.study_id, dead.trial_id)
    assert (event.kind, event.detail) == ("lost", "its worker died")
    # Nor what a worker holds of another study, or has finished.
    assert leases.reap_worker(stored.engine, stored.study_id + 1, second.token) == []
    end(stored, neighbour, TrialState.PRUNED)
    assert leases.reap_worker(stored.engine, stored.study_id, second.token) == []
    assert states(stored)[1] == "PRUNED"


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_leases_of_finished_trials_disappear(state: TrialState, make_study: MakeStudy) -> None:
    stored = make_study()
    finished, running = claim(stored), claim(stored, BOB)
    end(stored, finished, state)
    assert leases.reap(stored.engine, stored.study_id) == []
    assert leased(stored) == [running.trial_id]
    assert not leases.renew(stored.engine, finished)
    assert leases.renew(stored.engine, running)


def test_leases_of_a_deleted_study_disappear(make_study: MakeStudy) -> None:
    deleted, kept = make_study(), make_study(name="other")
    claim(deleted)
    remaining = claim(kept)
    optuna.delete_study(study_name=deleted.spec.name, storage=deleted.storage)
    assert len(leased(kept)) == 2
    assert leases.reap(kept.engine) == []
    assert leased(kept) == [remaining.trial_id]


def test_a_waiting_trial_keeps_its_count_of_attempts(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=1)
    for attempt in range(1, 5):
        claimed = claim(stored)
        assert claimed.attempt == attempt
        assert leases.release(stored.engine, claimed)
        leases.reap(stored.engine, stored.study_id)


def test_a_study_made_anew_owes_nothing_to_the_workers_of_the_old_one(
    make_study: MakeStudy,
) -> None:
    old = make_study()
    claimed = claim(old)
    optuna.delete_study(study_name=old.study.study_name, storage=old.storage)
    new = make_study()
    assert leased(new) == []
    assert new.lineage != old.lineage
    assert not leases.renew(new.engine, claimed)
    assert not leases.release(new.engine, claimed)
    assert leases.reap(new.engine) == []
    assert states(new) == ["WAITING"] * 5
    first = claim(new, BOB)
    assert first.attempt == 1
    assert kinds(new, first) == ["claimed"]


def test_a_lease_left_behind_by_a_deleted_study_counts_no_attempt_of_another(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    claim(stored)
    with stored.engine.begin() as connection:
        connection.execute(
            sa.update(schema.leases).values(study_id=stored.study_id + 1, attempt=7)
        )
        connection.execute(sa.update(schema.trials).values(state=TrialState.WAITING))
    assert claim(stored, BOB).attempt == 1
    assert [holder["number"] for holder in leases.holders(stored.engine, stored.study_id)] == [0]


def test_the_time_that_the_server_was_down_is_nobodys_silence(
    restartable_postgres: Any, make_spec: Callable[..., StudySpec], pass_time: PassTime
) -> None:
    url = restartable_postgres.url
    create_study(make_spec(), storage=url)
    with contextlib.closing(load_study("tiny", storage=url)) as stored:
        claim(stored, lease_s=3600)
        with stored.engine.begin() as connection:
            connection.execute(sa.update(schema.leases).values(renewed_at=0.0))
        # The server has run for less than the lease: it may have been down for all the time.
        assert leases.reap(stored.engine, stored.study_id) == []
        with stored.engine.connect() as connection:
            started = connection.scalar(sa.text("SELECT pg_postmaster_start_time()"))
        restartable_postgres.stop()
        restartable_postgres.start()
        with stored.engine.connect() as connection:
            restarted = connection.scalar(sa.text("SELECT pg_postmaster_start_time()"))
        assert restarted > started
        assert leases.reap(stored.engine, stored.study_id) == []
        pass_time(3700)
        assert leases.reap(stored.engine, stored.study_id) == [0]


# Clocks that are set


@pytest.mark.parametrize("server", ["started before", "started in the future"])
def test_a_sign_of_life_from_the_future_is_none_and_the_living_have_a_lease_to_be_heard(
    server: str, make_study: MakeStudy, pass_time: PassTime, caplog: pytest.LogCaptureFixture
) -> None:
    stored = make_study()
    if server == "started in the future":
        # The clock was ahead when PostgreSQL was started, too.
        pass_time(-3 * 3600)
    dead, living = claim(stored, ALICE), claim(stored, BOB)
    pass_time(3600)
    assert leases.renew(stored.engine, dead)
    assert leases.renew(stored.engine, living)
    pass_time(-3600)
    for holder in leases.holders(stored.engine, stored.study_id):
        assert (holder["silent_s"], holder["held_s"] >= 0) == (0, True)
    # Whoever looks first lets these leases begin now; looking again changes nothing.
    assert leases.reap(stored.engine, stored.study_id) == []
    assert caplog.text.count("was heard of in the future") == 2
    pass_time(40)
    assert leases.reap(stored.engine) == []
    assert caplog.text.count("was heard of in the future") == 2
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] >= 40
    assert leases.renew(stored.engine, living)
    pass_time(30)
    assert leases.reap(stored.engine, stored.study_id) == [dead.number]
    assert states(stored)[:2] == ["WAITING", "RUNNING"]
    assert kinds(stored, living) == ["claimed"]


def test_a_stamp_from_the_future_in_the_table_itself_is_mended_once(
    make_study: MakeStudy,
) -> None:
    stored, other = make_study(), make_study(name="other")
    claim(stored)
    claim(other)
    with stored.engine.begin() as connection:
        stamps = (schema.leases.c.renewed_at, schema.leases.c.claimed_at)
        ahead = {stamp.name: stamp + 3600 for stamp in stamps}
        connection.execute(sa.update(schema.leases).values(ahead))
    assert leases.reap(stored.engine, stored.study_id) == []
    query = sa.select(schema.leases.c.renewed_at - schema.now(connection))
    with stored.engine.connect() as connection:
        (mended, not_looked_at) = connection.scalars(query.order_by(schema.leases.c.study_id))
    assert mended <= 0
    assert not_looked_at > 3000
    for study in (stored, other):
        (holder,) = leases.holders(study.engine, study.study_id)
        assert (holder["held_s"], holder["silent_s"] < 50) == (0, True)


# Several at once


@contextlib.contextmanager
def workers(stored: StoredStudy, url: str, number: int) -> Iterator[list[StoredStudy]]:
    """Open the study once for each of several workers, as processes do."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.closing(load_study(stored.spec.name, storage=url)))
            for _ in range(number)
        ]


def test_workers_that_claim_at_once_never_get_the_same_trial(
    make_study: MakeStudy, ready_url: str
) -> None:
    stored = make_study(num_trials=30)
    start = threading.Barrier(6)

    def take_all(own: StoredStudy) -> list[int]:
        start.wait(60)
        taken = []
        while (found := leases.claim(own.engine, own.study_id, WorkerIdentity("cpu"))) is not None:
            taken.append(found.number)
        return taken

    with workers(stored, ready_url, 6) as own, ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(take_all, own, timeout=200))
    assert all(numbers == sorted(numbers) for numbers in taken)
    assert sorted(number for numbers in taken for number in numbers) == list(range(30))
    assert leases.counts(stored.engine, stored.study_id)[TrialState.RUNNING] == 30


def test_reports_ends_releases_renewals_and_reaps_at_once_do_not_block_each_other(
    make_study: MakeStudy, ready_url: str
) -> None:
    """Every lease is over as soon as it is made: whoever reaps takes everything it can get."""
    stored = make_study(num_trials=12)
    study_id = stored.study_id
    done = threading.Event()
    in_hand: dict[str, Claim] = {}
    too_late = threading.Timer(150, done.set)
    too_late.start()
    with workers(stored, ready_url, 4) as own, ThreadPoolExecutor(4) as pool:
        engines = [one.engine for one in own]
        work: list[Callable[[], object]] = [
            lambda: leases.reap(engines[2], study_id),
            lambda: leases.reap_worker(engines[2], study_id, ALICE.token),
            lambda: [leases.renew(engines[3], claimed) for claimed in [*in_hand.values()]],
        ]
        trained = [
            pool.submit(train, own[0], ALICE, in_hand, done),
            pool.submit(train, own[1], BOB, in_hand, done),
        ]
        others = [
            pool.submit(repeat, work[:2], done),
            pool.submit(repeat, work[2:], done),
        ]
        try:
            assert sum(future.result(timeout=200) for future in trained) == 12
        finally:
            done.set()
            too_late.cancel()
        for future in others:
            future.result(timeout=200)
    assert states(stored) == ["COMPLETE"] * 12
    assert leased(stored) == []
    for trial in stored.study.get_trials():
        assert trial.intermediate_values == {0: 0.1, 1: 0.5}
        told = [e.kind for e in story(stored.engine, study_id, trial._trial_id)]
        assert (told.count("complete"), told[-1]) == (1, "complete")


def repeat(work: list[Callable[[], object]], done: threading.Event) -> None:
    while not done.wait(0.005):
        for step in work:
            step()


def train(
    own: StoredStudy, worker: WorkerIdentity, in_hand: dict[str, Claim], done: threading.Event
) -> int:
    """Take trials until all have ended; every third one is given back."""
    finished = 0
    for turn in count():
        if done.is_set():
            break
        claimed = leases.claim(own.engine, own.study_id, worker, lease_s=0)
        if claimed is not None:
            in_hand[worker.token] = claimed
            finished += train_one(own, claimed, gives_back=turn % 3 == 0)
            continue
        counts = leases.counts(own.engine, own.study_id)
        if counts[TrialState.RUNNING] == counts[TrialState.WAITING] == 0:
            break
    return finished


def train_one(own: StoredStudy, claimed: Claim, *, gives_back: bool) -> bool:
    """Do with a trial what a worker does; False if it did not end."""
    with contextlib.suppress(LeaseLostError):
        trial_writes.rewind(own.engine, claimed, [0.1], [], EventKind.RESUMED, "")
        trial_writes.write_report(own.engine, claimed, 1, 0.5)
        if gives_back:
            leases.release(own.engine, claimed)
            return False
        end_it = (TrialState.COMPLETE, EventKind.COMPLETE)
        trial_writes.finish(own.engine, claimed, *end_it, value=0.5, epochs=2)
        return True
    return False


@on_postgres
def test_a_reap_that_was_overtaken_leaves_the_successor_alone(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, pass_time: PassTime
) -> None:
    stored = make_study(num_trials=1)
    claim(stored)
    pass_time(100)
    unheld = leases.now

    def held_up(connection: sa.Connection) -> sa.ColumnElement[Any]:
        """Let the statement that has begun wait for a lock before it looks at the first row."""
        wait = sa.literal_column("(SELECT 0.0 FROM pg_advisory_xact_lock_shared(42))", sa.Float)
        return unheld(connection) + wait

    reaped: list[list[int]] = []
    with stored.engine.connect() as gate:
        gate.execute(sa.text("SELECT pg_advisory_lock(42)"))
        with monkeypatch.context() as patch:
            patch.setattr(leases, "now", held_up)
            slow = threading.Thread(
                target=lambda: reaped.append(leases.reap(stored.engine, stored.study_id))
            )
            slow.start()
            wait_for_a_waiting_lock(gate)
        assert leases.reap(stored.engine, stored.study_id) == [0]
        successor = claim(stored, BOB)
        gate.execute(sa.text("SELECT pg_advisory_unlock(42)"))
        slow.join(60)
    assert reaped == [[]]
    assert leases.renew(stored.engine, successor)


# Looking at a study


def test_trials_are_counted_by_state(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=6)
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        end(stored, claim(stored), state)
    claim(stored)
    assert leases.counts(stored.engine, stored.study_id) == {
        TrialState.WAITING: 2,
        TrialState.RUNNING: 1,
        TrialState.COMPLETE: 1,
        TrialState.PRUNED: 1,
        TrialState.FAIL: 1,
    }


def test_the_holders_are_listed_with_their_trial_and_device(make_study: MakeStudy) -> None:
    stored = make_study()
    other = make_study(name="other")
    claim(other, BOB)
    gone = claim(stored, ALICE)
    claims = [claim(stored, BOB), claim(stored, ALICE)]
    leases.release(stored.engine, gone)
    holders = leases.holders(stored.engine, stored.study_id)
    shown = [(h["number"], h["trial_id"], h["host"], h["pid"], h["device"]) for h in holders]
    assert shown == [
        (1, claims[0].trial_id, "b", 22, "cuda:0"),
        (2, claims[1].trial_id, "a", 11, "cpu"),
    ]
    for holder in holders:
        assert holder["attempt"] == 1
        assert float(holder["silent_s"]) >= 0
        assert float(holder["held_s"]) >= 0


def test_every_worker_has_a_token_of_its_own_and_names_its_process() -> None:
    first, second = WorkerIdentity(device="cpu"), WorkerIdentity(device="cpu")
    assert first.token != second.token
    assert len(first.token) == 32
    assert (first.host, first.pid) == (socket.gethostname(), os.getpid())
    assert str(ALICE) == "a:11 (cpu)"
