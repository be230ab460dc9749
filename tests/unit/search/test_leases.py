from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.errors import LeaseLostError
from skdtune.search import leases, schema
from skdtune.search.leases import Claim, WorkerIdentity
from skdtune.search.study import StoredStudy, create_study, load_study
from skdtune.space import sample
from skdtune.spec import StudySpec

MakeStudy = Callable[..., StoredStudy]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)
BOB = WorkerIdentity(device="cuda:0", token="bob", host="b", pid=22)


def claim(stored: StoredStudy, worker: WorkerIdentity = ALICE) -> Claim:
    found = leases.claim(stored.engine, stored.study_id, worker)
    assert found is not None
    return found


def states(stored: StoredStudy) -> list[str]:
    return [trial.state.name for trial in stored.study.get_trials()]


def fall_silent(stored: StoredStudy, claimed: Claim, seconds: float = 100) -> None:
    """Let a lease look as if it had been renewed so long ago, on the database's clock."""
    with stored.engine.begin() as connection:
        connection.execute(
            sa.update(schema.leases)
            .where(schema.leases.c.trial_id == claimed.trial_id)
            .values(renewed_at=schema.leases.c.renewed_at - seconds)
        )


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


def test_trials_are_claimed_once_each_in_their_order(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=3)
    claims = [claim(stored, worker) for worker in (ALICE, BOB, ALICE)]
    assert [c.number for c in claims] == [0, 1, 2]
    assert [c.attempt for c in claims] == [1, 1, 1]
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


def test_only_the_owner_renews_a_lease(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    fall_silent(stored, claimed)
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] >= 100
    assert not leases.renew(stored.engine, claimed.trial_id, BOB.token)
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] >= 100
    assert leases.renew(stored.engine, claimed.trial_id, ALICE.token)
    assert leases.holders(stored.engine, stored.study_id)[0]["silent_s"] < 50


def test_a_released_trial_waits_again_and_counts_its_attempts(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    assert leases.release(stored.engine, claimed.trial_id, ALICE.token)
    assert states(stored)[0] == "WAITING"
    assert owner(stored, claimed) is None
    again = claim(stored, BOB)
    assert (again.trial_id, again.number, again.attempt) == (claimed.trial_id, 0, 2)
    assert owner(stored, again) == BOB.token


def test_only_the_owner_releases_a_trial(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    assert not leases.release(stored.engine, claimed.trial_id, BOB.token)
    assert states(stored)[0] == "RUNNING"
    assert leases.release(stored.engine, claimed.trial_id, ALICE.token)
    assert not leases.release(stored.engine, claimed.trial_id, ALICE.token)


def test_a_release_and_a_reap_at_once_do_not_lock_each_other_out(
    postgres_url: str, make_spec: Callable[..., StudySpec]
) -> None:
    create_study(make_spec(), storage=postgres_url)
    with contextlib.closing(load_study("tiny", storage=postgres_url)) as stored:
        claimed = claim(stored)
        released: list[bool] = []

        def release() -> None:
            released.append(leases.release(stored.engine, claimed.trial_id, ALICE.token))

        thread = threading.Thread(target=release)
        waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        trial = schema.trials.c.trial_id == claimed.trial_id
        # What a reap does, one statement after the other.
        with stored.engine.begin() as connection:
            connection.execute(sa.select(schema.trials).where(trial).with_for_update())
            thread.start()
            while not connection.scalar(waiting):
                pass
            connection.execute(sa.update(schema.leases).values(owner=None))
            connection.execute(sa.update(schema.trials).where(trial).values(state="WAITING"))
        thread.join(30)
        assert released == [False]
        assert states(stored)[0] == "WAITING"


def test_a_finished_trial_does_not_come_back_by_a_release(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    stored.study._storage.set_trial_state_values(claimed.trial_id, TrialState.COMPLETE, [0.5])
    assert not leases.release(stored.engine, claimed.trial_id, ALICE.token)
    assert states(stored)[0] == "COMPLETE"


def test_only_the_owner_drops_a_lease(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    leases.drop(stored.engine, claimed.trial_id, BOB.token)
    assert leased(stored) == [claimed.trial_id]
    leases.drop(stored.engine, claimed.trial_id, ALICE.token)
    assert leased(stored) == []


def test_only_a_silent_lease_is_reaped(make_study: MakeStudy) -> None:
    stored = make_study()
    silent, alive = claim(stored, ALICE), claim(stored, BOB)
    fall_silent(stored, silent, seconds=100)
    assert leases.reap(stored.engine, stored.study_id, lease_s=200) == []
    assert leases.reap(stored.engine, stored.study_id, lease_s=50) == [silent.number]
    assert states(stored)[:2] == ["WAITING", "RUNNING"]
    assert owner(stored, alive) == BOB.token
    assert leases.reap(stored.engine, stored.study_id, lease_s=50) == []


def test_the_usual_lease_is_a_minute(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    fall_silent(stored, claimed, seconds=50)
    assert leases.reap(stored.engine, stored.study_id) == []
    fall_silent(stored, claimed, seconds=15)
    assert leases.reap(stored.engine, stored.study_id) == [0]


def test_a_reaped_trial_keeps_number_parameters_curve_and_rung_marks(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    claimed = claim(stored)
    stored.study.get_trials()
    trial = optuna.Trial(stored.study, claimed.trial_id)
    params = sample(stored.spec.search, trial)
    trial.report(0.25, 0)
    trial.report(0.5, 1)
    trial.set_user_attr("seed", 7)
    stored.study._storage.set_trial_system_attr(claimed.trial_id, "completed_rung_0", 0.25)
    fall_silent(stored, claimed)
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


def test_a_new_attempt_forgets_the_curve_and_the_rungs_and_nothing_else(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    claims = [claim(stored), claim(stored)]
    stored.study.get_trials()
    for claimed in claims:
        trial = optuna.Trial(stored.study, claimed.trial_id)
        sample(stored.spec.search, trial)
        trial.report(0.25, 0)
        trial.set_user_attr("seed", 7)
        stored.study._storage.set_trial_system_attr(claimed.trial_id, "completed_rung_0", 0.25)
    leases.forget_curve(stored.engine, claims[0].trial_id)
    again, other = stored.study.get_trials()[:2]
    assert again.intermediate_values == {}
    assert set(again.system_attrs) == set(other.system_attrs) - {"completed_rung_0"} | {
        "fixed_params"
    }
    assert again.params == stored.spec.base_params()
    assert again.user_attrs == {"seed": 7}
    assert other.intermediate_values == {0: 0.25}
    assert other.system_attrs["completed_rung_0"] == 0.25


def test_a_lost_lease_can_neither_be_renewed_nor_released_nor_dropped(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    claimed = claim(stored)
    fall_silent(stored, claimed)
    leases.reap(stored.engine, stored.study_id)
    assert not leases.renew(stored.engine, claimed.trial_id, ALICE.token)
    assert claim(stored, BOB).trial_id == claimed.trial_id
    assert not leases.renew(stored.engine, claimed.trial_id, ALICE.token)
    assert not leases.release(stored.engine, claimed.trial_id, ALICE.token)
    leases.drop(stored.engine, claimed.trial_id, ALICE.token)
    assert states(stored)[0] == "RUNNING"
    assert owner(stored, claimed) == BOB.token


def test_a_running_trial_whose_lease_nobody_owns_is_reaped(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    with stored.engine.begin() as connection:
        connection.execute(sa.update(schema.leases).values(owner=None))
    assert leases.reap(stored.engine, stored.study_id) == [claimed.number]


def test_reaping_one_study_leaves_the_others_alone(make_study: MakeStudy) -> None:
    first, second = make_study(), make_study(name="other")
    silent, elsewhere = claim(first), claim(second)
    fall_silent(first, silent)
    fall_silent(second, elsewhere)
    assert leases.reap(first.engine, first.study_id) == [0]
    assert states(second)[0] == "RUNNING"


def test_reaping_without_a_study_looks_at_all(make_study: MakeStudy) -> None:
    first, second = make_study(), make_study(name="other")
    fall_silent(first, claim(first))
    fall_silent(second, claim(second))
    assert leases.reap(first.engine) == [0, 0]
    assert states(first)[0] == states(second)[0] == "WAITING"


def test_the_trials_of_a_dead_process_come_back_at_once(make_study: MakeStudy) -> None:
    stored = make_study()
    neighbour = WorkerIdentity(device="cpu", token="carol", host=ALICE.host, pid=33)
    same_pid = WorkerIdentity(device="cpu", token="dave", host="elsewhere", pid=ALICE.pid)
    dead = claim(stored, ALICE)
    for worker in (neighbour, same_pid, BOB):
        claim(stored, worker)
    assert leases.reap_worker(stored.engine, stored.study_id, ALICE.host, ALICE.pid) == [0]
    assert states(stored)[:4] == ["WAITING", "RUNNING", "RUNNING", "RUNNING"]
    assert owner(stored, dead) is None
    assert leases.reap_worker(stored.engine, stored.study_id, ALICE.host, ALICE.pid) == []


def test_a_dead_process_gives_back_nothing_that_it_had_finished(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    stored.study._storage.set_trial_state_values(claimed.trial_id, TrialState.PRUNED)
    assert leases.reap_worker(stored.engine, stored.study_id, ALICE.host, ALICE.pid) == []
    assert states(stored)[0] == "PRUNED"


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_leases_of_finished_trials_disappear(state: TrialState, make_study: MakeStudy) -> None:
    stored = make_study()
    finished, running = claim(stored), claim(stored, BOB)
    values = [0.5] if state is TrialState.COMPLETE else None
    stored.study._storage.set_trial_state_values(finished.trial_id, state, values)
    leases.reap(stored.engine, stored.study_id)
    assert leased(stored) == [running.trial_id]
    assert not leases.renew(stored.engine, finished.trial_id, ALICE.token)


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
        assert leases.release(stored.engine, claimed.trial_id, ALICE.token)
        leases.reap(stored.engine, stored.study_id)


def test_trials_are_counted_by_state(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=6)
    storage = stored.study._storage
    ends = [(TrialState.COMPLETE, [0.1]), (TrialState.PRUNED, None), (TrialState.FAIL, None)]
    for state, values in ends:
        storage.set_trial_state_values(claim(stored).trial_id, state, values)
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
    leases.release(stored.engine, gone.trial_id, ALICE.token)
    holders = leases.holders(stored.engine, stored.study_id)
    shown = [(h["number"], h["trial_id"], h["host"], h["pid"], h["device"]) for h in holders]
    assert shown == [
        (1, claims[0].trial_id, "b", 22, "cuda:0"),
        (2, claims[1].trial_id, "a", 11, "cpu"),
    ]
    for holder in holders:
        assert holder["attempt"] == 1
        assert 0 <= float(holder["silent_s"]) < 60
        assert 0 <= float(holder["held_s"]) < 60


def test_every_worker_has_a_token_of_its_own_and_names_its_process() -> None:
    first, second = WorkerIdentity(device="cpu"), WorkerIdentity(device="cpu")
    assert first.token != second.token
    assert len(first.token) == 32
    assert (first.host, first.pid) == (socket.gethostname(), os.getpid())


def test_a_trial_that_starts_over_forgets_its_curve_and_rungs(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    stored.storage.set_trial_intermediate_value(claimed.trial_id, 3, 0.5)
    stored.storage.set_trial_system_attr(claimed.trial_id, "completed_rung_0", 0.5)
    stored.storage.set_trial_system_attr(claimed.trial_id, "kept", 1)
    leases.forget_curve(stored.engine, claimed.trial_id)
    trial = stored.study.get_trials()[0]
    assert trial.intermediate_values == {}
    assert trial.system_attrs.keys() >= {"kept", "fixed_params"}
    assert "completed_rung_0" not in trial.system_attrs


def test_a_study_made_anew_owes_nothing_to_the_workers_of_the_old_one(
    make_study: MakeStudy,
) -> None:
    old = make_study()
    claimed = claim(old)
    optuna.delete_study(study_name=old.study.study_name, storage=old.storage)
    new = make_study()
    assert leased(new) == [] or new.study_id != old.study_id
    if new.study_id == old.study_id:
        assert not leases.renew(new.engine, claimed.trial_id, ALICE.token)
    assert states(new) == ["WAITING"] * 5


def test_a_thread_within_the_fence_commits_nothing_once_the_trial_is_not_its_own(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    claimed = claim(stored)
    storage, trial_id = stored.storage, claimed.trial_id
    with leases.fenced(stored.engine, trial_id, ALICE.token):
        storage.set_trial_intermediate_value(trial_id, 0, 0.5)
        in_another_thread(lambda: leases.release(stored.engine, trial_id, ALICE.token))
        for write in (
            lambda: storage.set_trial_intermediate_value(trial_id, 1, 0.5),
            lambda: storage.set_trial_user_attr(trial_id, "seed", 1),
            lambda: storage.set_trial_system_attr(trial_id, "curves", 1),
            lambda: storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5]),
        ):
            with pytest.raises(LeaseLostError):
                write()
        in_another_thread(lambda: storage.set_trial_user_attr(trial_id, "other", 1))
    storage.set_trial_user_attr(trial_id, "later", 1)
    trial = stored.study.get_trials()[0]
    assert (trial.state, trial.intermediate_values) == (TrialState.WAITING, {0: 0.5})
    assert trial.user_attrs == {"other": 1, "later": 1}


def test_the_fence_holds_against_a_successor_and_lets_it_write(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    with leases.fenced(stored.engine, claimed.trial_id, ALICE.token):

        def take_over() -> None:
            leases.release(stored.engine, claimed.trial_id, ALICE.token)
            assert claim(stored, BOB).attempt == 2
            with leases.fenced(stored.engine, claimed.trial_id, BOB.token):
                stored.storage.set_trial_user_attr(claimed.trial_id, "owner", "bob")

        in_another_thread(take_over)
        with pytest.raises(LeaseLostError):
            stored.storage.set_trial_user_attr(claimed.trial_id, "owner", "alice")
    assert stored.study.get_trials()[0].user_attrs == {"owner": "bob"}


def test_a_lease_left_behind_by_a_deleted_study_says_nothing_of_a_trial_of_another(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    claimed = claim(stored)
    with stored.engine.begin() as connection:
        connection.execute(
            sa.update(schema.leases).values(study_id=stored.study_id + 1, attempt=7)
        )
    with (
        leases.fenced(stored.engine, claimed.trial_id, ALICE.token),
        pytest.raises(LeaseLostError),
    ):
        stored.storage.set_trial_user_attr(claimed.trial_id, "owner", "alice")
    with stored.engine.begin() as connection:
        connection.execute(sa.update(schema.trials).values(state=TrialState.WAITING))
    assert claim(stored, BOB).attempt == 1
    assert [holder["number"] for holder in leases.holders(stored.engine, stored.study_id)] == [0]


def in_another_thread(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(work).result(timeout=60)
