from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.errors import InputError
from skdtune.queue import leases, schema, trial_budget, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.stored_study import StoredStudy, load_study
from skdtune.queue.trial_budget import MAX_TRIALS, set_budget

MakeStudy = Callable[..., StoredStudy]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)


def claim(stored: StoredStudy) -> Claim:
    found = leases.claim(stored.engine, stored.study_id, ALICE)
    assert found is not None
    return found


def numbers(stored: StoredStudy) -> list[int]:
    return [trial.number for trial in stored.storage.get_all_trials(stored.study_id)]


def finish(stored: StoredStudy, claimed: Claim) -> None:
    ended = (TrialState.PRUNED, EventKind.PRUNED)
    trial_writes.finish(stored.engine, claimed, *ended, value=None, epochs=0)


def test_a_budget_is_raised_by_waiting_trials(make_study: MakeStudy) -> None:
    stored, other = make_study(num_trials=3), make_study(name="other", num_trials=3)
    assert set_budget(stored.engine, stored.study_id, 8) == 3
    assert numbers(stored) == list(range(8))
    assert numbers(other) == list(range(3))
    assert leases.counts(stored.engine, stored.study_id)[TrialState.WAITING] == 8
    added = stored.storage.get_all_trials(stored.study_id)[3:]
    assert all(trial.system_attrs == {} and trial.params == {} for trial in added)


def test_a_study_whose_trials_have_all_ended_goes_on(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=1)
    finish(stored, claim(stored))
    assert leases.claim(stored.engine, stored.study_id, ALICE) is None
    set_budget(stored.engine, stored.study_id, 2)
    assert claim(stored).number == 1


def test_a_budget_is_lowered_by_the_trials_that_nobody_began(make_study: MakeStudy) -> None:
    stored, other = make_study(num_trials=8), make_study(name="other", num_trials=8)
    finish(stored, claim(stored))
    claim(stored)
    assert set_budget(stored.engine, stored.study_id, 2) == 8
    assert numbers(stored) == [0, 1]
    assert numbers(other) == list(range(8))
    assert leases.claim(stored.engine, stored.study_id, ALICE) is None


def test_an_enqueued_setting_goes_with_its_trial(make_study: MakeStudy) -> None:
    enqueued = "enqueue=[{optimizer.lr: 0.05}, {optimizer.lr: 0.06}]"
    stored = make_study(enqueued, num_trials=5)
    set_budget(stored.engine, stored.study_id, 2)
    with stored.engine.connect() as connection:
        trial_ids = set(connection.scalars(sa.select(schema.trials.c.trial_id)))
        marked = set(connection.scalars(sa.select(schema.trial_system_attributes.c.trial_id)))
    assert marked <= trial_ids
    set_budget(stored.engine, stored.study_id, 5)
    added = stored.storage.get_all_trials(stored.study_id)[2:]
    assert [trial.system_attrs for trial in added] == [{}, {}, {}]


@pytest.mark.parametrize("num_trials", [1, 5])
def test_a_budget_that_is_the_same_changes_nothing(num_trials: int, make_study: MakeStudy) -> None:
    stored = make_study(num_trials=num_trials)
    assert set_budget(stored.engine, stored.study_id, num_trials) == num_trials
    assert numbers(stored) == list(range(num_trials))


@pytest.mark.parametrize("end", ["running", "finished", "given back"])
def test_trials_that_have_begun_are_not_taken_away(end: str, make_study: MakeStudy) -> None:
    stored = make_study(num_trials=6)
    for _ in range(2):
        finish(stored, claim(stored))
    third = claim(stored)
    if end == "finished":
        finish(stored, third)
    elif end == "given back":
        leases.release(stored.engine, third)
    with pytest.raises(InputError) as caught:
        set_budget(stored.engine, stored.study_id, 2)
    assert str(caught.value) == (
        "trials up to number 2 have begun: the budget cannot be lower than 3, received 2"
    )
    assert numbers(stored) == list(range(6))
    assert set_budget(stored.engine, stored.study_id, 3) == 6
    assert numbers(stored) == [0, 1, 2]


@pytest.mark.parametrize("num_trials", [-1, 0, MAX_TRIALS + 1])
def test_a_number_that_is_no_budget_is_refused(num_trials: int, make_study: MakeStudy) -> None:
    stored = make_study()
    with pytest.raises(InputError, match=f"1 to {MAX_TRIALS} trials, received {num_trials}"):
        set_budget(stored.engine, stored.study_id, num_trials)
    assert numbers(stored) == list(range(5))


def test_a_large_budget_is_lowered_whole(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=1)
    set_budget(stored.engine, stored.study_id, 2501)
    assert set_budget(stored.engine, stored.study_id, 1) == 2501
    assert numbers(stored) == [0]


def test_trials_that_somebody_else_added_count(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=2)
    optuna.load_study(study_name="tiny", storage=stored.storage).enqueue_trial({"x": 1})
    assert set_budget(stored.engine, stored.study_id, 5) == 3
    assert numbers(stored) == list(range(5))


# Several at once


def test_two_who_raise_a_budget_at_once_number_its_trials_one_after_the_other(
    make_study: MakeStudy, ready_url: str
) -> None:
    stored = make_study(num_trials=1)
    start = threading.Barrier(2)

    def raise_it(goals: range) -> None:
        with contextlib.closing(load_study("tiny", storage=ready_url)) as own:
            start.wait(60)
            for goal in goals:
                with contextlib.suppress(InputError):
                    set_budget(own.engine, own.study_id, goal)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(raise_it, [range(2, 30, 2), range(3, 30, 2)], timeout=200))
    found = numbers(stored)
    assert found == list(range(len(found)))
    assert len(found) in (28, 29)


def test_while_workers_claim_a_budget_stays_exact(make_study: MakeStudy, ready_url: str) -> None:
    """Nobody is ever given a trial beyond the budget that was in force when it was claimed."""
    stored = make_study(num_trials=30)
    start = threading.Barrier(4)
    taken: list[int] = []
    settled: list[int] = []

    def take_all() -> None:
        with contextlib.closing(load_study("tiny", storage=ready_url)) as own:
            start.wait(60)
            while (got := leases.claim(own.engine, own.study_id, ALICE)) is not None:
                taken.append(got.number)
                finish(own, got)

    def lower() -> None:
        with contextlib.closing(load_study("tiny", storage=ready_url)) as own:
            start.wait(60)
            for goal in (25, 40, 20, 15, 12, 10):
                try:
                    set_budget(own.engine, own.study_id, goal)
                except InputError:
                    continue
                settled.append(goal)

    with ThreadPoolExecutor(4) as pool:
        for future in [*(pool.submit(take_all) for _ in range(3)), pool.submit(lower)]:
            future.result(timeout=200)
    # Trials may have been added after the workers found none and left.
    while (got := leases.claim(stored.engine, stored.study_id, ALICE)) is not None:
        taken.append(got.number)
        finish(stored, got)
    num_trials = settled[-1] if settled else 30
    assert sorted(taken) == numbers(stored) == list(range(num_trials))
    assert leases.counts(stored.engine, stored.study_id)[TrialState.PRUNED] == num_trials


@pytest.mark.parametrize("ready_url", ["postgres"], indirect=True)
def test_a_trial_that_is_being_claimed_is_not_taken_away(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=2)
    claim(stored)
    trials = schema.trials
    with stored.engine.begin() as claiming:
        claiming.execute(
            sa.select(trials.c.trial_id).where(trials.c.number == 1).with_for_update()
        )
        with pytest.raises(InputError):
            set_budget(stored.engine, stored.study_id, 1)
    assert numbers(stored) == [0, 1]


@pytest.mark.parametrize("ready_url", ["postgres"], indirect=True)
def test_a_refusal_because_of_a_claim_in_progress_does_not_contradict_itself(
    make_study: MakeStudy,
) -> None:
    stored = make_study(num_trials=3)
    trials = schema.trials
    with stored.engine.begin() as claiming:
        claiming.execute(
            sa.select(trials.c.trial_id).where(trials.c.number == 1).with_for_update()
        )
        with pytest.raises(InputError) as caught:
            set_budget(stored.engine, stored.study_id, 1)
    assert "cannot be lower than 1, received 1" not in str(caught.value)


@pytest.mark.parametrize("ready_url", ["postgres"], indirect=True)
def test_a_trial_that_is_begun_and_given_back_meanwhile_is_not_taken_away(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_study(num_trials=2)
    finish(stored, claim(stored))
    # Let the statement that has begun wait for a lock before it looks at the first trial.
    wait = sa.literal_column("(SELECT 0 FROM pg_advisory_xact_lock_shared(42))", sa.Integer)
    refused: list[bool] = []

    def lower() -> None:
        try:
            set_budget(stored.engine, stored.study_id, 1)
        except InputError:
            refused.append(True)
        else:
            refused.append(False)

    with stored.engine.connect() as gate:
        gate.execute(sa.text("SELECT pg_advisory_lock(42)"))
        with monkeypatch.context() as patch:
            patch.setattr(trial_budget, "IS_WAITING", sa.and_(wait == 0, trial_budget.IS_WAITING))
            slow = threading.Thread(target=lower)
            slow.start()
            while not gate.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                pass
            leases.release(stored.engine, claim(stored))
            gate.execute(sa.text("SELECT pg_advisory_unlock(42)"))
            slow.join(60)
    assert refused == [True]
    assert numbers(stored) == [0, 1]
