from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from skdtune.describe.space import sample
from skdtune.errors import InputError, LeaseLostError
from skdtune.queue import leases, schema, trial_writes
from skdtune.queue.events import EventKind, record
from skdtune.queue.history import TrialHistory
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.patience import Patience
from skdtune.queue.stored_study import StoredStudy
from skdtune.queue.trial_budget import set_budget
from skdtune.queue.trial_queue import TrialQueue
from skdtune.search.samplers.tpe import TpeConfig

MakeStudy = Callable[..., StoredStudy]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)
BOB = WorkerIdentity(device="cuda:0", token="bob", host="b", pid=22)

on_sqlite = pytest.mark.parametrize("ready_url", ["sqlite"], indirect=True)


def claim(stored: StoredStudy, worker: WorkerIdentity = ALICE) -> Claim:
    found = leases.claim(stored.engine, stored.study_id, worker)
    assert found is not None
    return found


def new_history(stored: StoredStudy) -> TrialHistory:
    return TrialHistory(TrialQueue(stored, Patience(outage_s=0)))


def finish(stored: StoredStudy, claimed: Claim, value: float = 0.5) -> None:
    ended = (TrialState.COMPLETE, EventKind.COMPLETE)
    trial_writes.finish(stored.engine, claimed, *ended, value=value, epochs=1)


def seen(history: TrialHistory, stored: StoredStudy) -> dict[int, TrialState]:
    return {trial.number: trial.state for trial in history.get_all_trials(stored.study_id)}


def begun(stored: StoredStudy) -> list[FrozenTrial]:
    """Read the trials that have begun as plain Optuna does."""
    trials = stored.storage.get_all_trials(stored.study_id)
    return [trial for trial in trials if trial.state is not TrialState.WAITING]


def watch_reads(stored: StoredStudy, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return a list that collects, for each read, the numbers of the trials that were read."""
    reads: list[list[int]] = []
    real = stored.storage._get_trials

    def counted(*arguments: Any, **named: Any) -> list[FrozenTrial]:
        found = real(*arguments, **named)
        reads.append([trial.number for trial in found])
        return found

    monkeypatch.setattr(stored.storage, "_get_trials", counted)
    return reads


# What it sees


def test_only_trials_that_have_begun_are_seen(make_study: MakeStudy) -> None:
    stored = make_study()
    history = new_history(stored)
    assert seen(history, stored) == {}
    first, _ = claim(stored), claim(stored, BOB)
    finish(stored, first)
    assert seen(history, stored) == {0: TrialState.COMPLETE, 1: TrialState.RUNNING}
    assert history.get_all_trials(stored.study_id) == begun(stored)


def test_the_states_that_are_asked_for_are_returned(make_study: MakeStudy) -> None:
    stored = make_study()
    history = new_history(stored)
    finish(stored, claim(stored))
    claim(stored)
    for states, numbers in (
        ((TrialState.COMPLETE,), [0]),
        ((TrialState.RUNNING, TrialState.COMPLETE), [0, 1]),
        ((TrialState.WAITING,), []),
    ):
        found = history.get_all_trials(stored.study_id, states=states)
        assert [trial.number for trial in found] == numbers


def test_what_a_caller_changes_is_its_own_copy(make_study: MakeStudy) -> None:
    stored = make_study()
    history = new_history(stored)
    finish(stored, claim(stored))
    history.get_all_trials(stored.study_id)[0].user_attrs["seed"] = 1
    assert history.get_all_trials(stored.study_id)[0].user_attrs == {}


def test_a_finished_trial_is_read_once_and_one_that_waits_never(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_study(num_trials=8)
    for _ in range(3):
        finish(stored, claim(stored))
    running = claim(stored)
    reads = watch_reads(stored, monkeypatch)
    history = new_history(stored)
    for _ in range(3):
        history.get_all_trials(stored.study_id)
    assert reads == [[0, 1, 2, 3], [3], [3]]
    reads.clear()
    finish(stored, running)
    later = claim(stored)
    for _ in range(3):
        history.get_all_trials(stored.study_id)
    assert reads == [[3, 4], [4], [4]]
    reads.clear()
    finish(stored, later)
    for _ in range(3):
        history.get_all_trials(stored.study_id)
    assert reads == [[4]], "where nothing runs nothing is read"


def test_a_trial_that_is_given_back_disappears_until_it_is_claimed_again(
    make_study: MakeStudy,
) -> None:
    stored = make_study()
    history = new_history(stored)
    claims = [claim(stored) for _ in range(3)]
    assert set(seen(history, stored)) == {0, 1, 2}
    leases.release(stored.engine, claims[2])
    leases.release(stored.engine, claims[1])
    assert set(seen(history, stored)) == {0}
    assert claim(stored, BOB).number == 1
    assert set(seen(history, stored)) == {0, 1}
    finish(stored, claim(stored, BOB))
    assert seen(history, stored)[2] is TrialState.COMPLETE
    assert history.get_all_trials(stored.study_id) == begun(stored)


def test_a_trial_that_is_claimed_during_the_first_look_and_given_back_disappears(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_study()
    history = new_history(stored)
    real = history._find_newest_id
    claims: list[Claim] = []

    def claimed_meanwhile(study_id: int) -> int:
        newest_id = real(study_id)
        claims.append(claim(stored))
        return newest_id

    with monkeypatch.context() as patch:
        patch.setattr(history, "_find_newest_id", claimed_meanwhile)
        history.get_all_trials(stored.study_id)
    leases.release(stored.engine, claims[0])
    assert seen(history, stored) == {}


operations = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "finish", "give back", "report", "budget", "look"]),
        st.integers(0, 9),
    ),
    max_size=40,
)


@on_sqlite
@given(operations=operations)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_history_is_what_plain_optuna_reads(
    operations: list[tuple[str, int]], make_study: MakeStudy
) -> None:
    """Trials are begun out of their order too, as workers that skip locked rows do."""
    stored = make_study(num_trials=4)
    # Its trials have keys in between.
    other = make_study(name="other", num_trials=2)
    often, seldom = new_history(stored), new_history(stored)
    for operation, number in operations:
        apply(stored, operation, number)
        set_budget(other.engine, other.study_id, 2 + number)
        if operation == "look":
            assert seldom.get_all_trials(stored.study_id) == begun(stored)
        assert often.get_all_trials(stored.study_id) == begun(stored)
    assert seldom.get_all_trials(stored.study_id) == begun(stored)
    for one in (stored, other):
        optuna.delete_study(study_name=one.study.study_name, storage=one.storage)
        one.close()


def apply(stored: StoredStudy, operation: str, number: int) -> None:
    """Change a trial, or the budget, as far as that is possible."""
    trials = stored.storage.get_all_trials(stored.study_id)
    if operation == "budget":
        try:
            set_budget(stored.engine, stored.study_id, number + 1)
        except InputError:
            return
    elif operation != "look" and number < len(trials):
        change(stored, operation, trials[number])


def change(stored: StoredStudy, operation: str, trial: FrozenTrial) -> None:
    storage, key = stored.storage, trial._trial_id
    if operation == "start" and trial.state is TrialState.WAITING:
        storage.set_trial_state_values(key, TrialState.RUNNING)
        write_lease(stored, key)
    elif trial.state is not TrialState.RUNNING:
        return
    elif operation == "finish":
        storage.set_trial_state_values(key, TrialState.COMPLETE, [0.5])
        with stored.engine.begin() as connection:
            told = {"kind": EventKind.COMPLETE, "attempt": 1, "worker": "a", "final": True}
            record(connection, study_id=stored.study_id, trial_id=key, **told)
    elif operation == "report":
        step = len(trial.intermediate_values)
        storage.set_trial_intermediate_value(key, step, 0.25)
    elif operation == "give back":
        table = schema.trials
        with stored.engine.begin() as connection:
            waiting = sa.update(table).values(state=TrialState.WAITING)
            connection.execute(waiting.where(table.c.trial_id == key))


def write_lease(stored: StoredStudy, trial_id: int) -> None:
    """Note that a worker began a trial: no budget takes it away, and it is not foreign."""
    with stored.engine.begin() as connection:
        connection.execute(sa.delete(schema.leases).where(schema.leases.c.trial_id == trial_id))
        connection.execute(
            sa.insert(schema.leases).values(
                trial_id=trial_id,
                study_id=stored.study_id,
                attempt=1,
                owner="alice",
                host="a",
                pid=1,
                device="cpu",
                claimed_at=0.0,
                renewed_at=0.0,
                lease_s=60.0,
            )
        )


# The trial in hand


def test_a_list_of_trials_does_not_change_with_the_trial_in_hand(make_study: MakeStudy) -> None:
    """Successive halving lists the trials, marks its own, and adds its value to the list."""
    stored = make_study()
    history = new_history(stored)
    claimed = claim(stored)
    history.begin(claimed, RandomSampler())
    (listed,) = history.get_all_trials(stored.study_id, deepcopy=False)
    history.set_trial_system_attr(claimed.trial_id, "completed_rung_0", 0.5)
    assert "completed_rung_0" not in listed.system_attrs
    (later,) = history.get_all_trials(stored.study_id, deepcopy=False)
    assert later.system_attrs["completed_rung_0"] == 0.5


def test_parameters_are_stored_in_one_transaction(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    history = new_history(stored)
    params = sample(stored.spec.search, history.begin(claimed, RandomSampler(seed=3)))
    assert len(params) > 2
    assert stored.storage.get_trial(claimed.trial_id).params == {}
    commits: list[object] = []
    note = commits.append
    sa.event.listen(stored.engine, "commit", note)
    history.store_params()
    sa.event.remove(stored.engine, "commit", note)
    assert len(commits) == 1
    assert stored.storage.get_trial(claimed.trial_id).params == params


def test_parameters_are_stored_as_plain_optuna_stores_them(make_study: MakeStudy) -> None:
    stored = make_study()
    claim(stored)
    ours, theirs = claim(stored), claim(stored)
    history = new_history(stored)
    params = sample(stored.spec.search, history.begin(ours, RandomSampler(seed=3)))
    history.store_params()
    stored.study.sampler = RandomSampler(seed=3)
    stored.study.get_trials()
    assert sample(stored.spec.search, optuna.Trial(stored.study, theirs.trial_id)) == params
    one, other = (stored.storage.get_trial(c.trial_id) for c in (ours, theirs))
    assert one.params == other.params == params
    assert one.distributions == other.distributions
    assert list(one.params) == list(other.params)


def test_trial_0_is_the_published_setting(make_study: MakeStudy) -> None:
    stored = make_study()
    trial = new_history(stored).begin(claim(stored), RandomSampler(seed=3))
    assert sample(stored.spec.search, trial) == stored.spec.base_params()


def test_a_trial_that_goes_on_has_the_parameters_it_began_with(make_study: MakeStudy) -> None:
    stored = make_study()
    claim(stored)
    first = claim(stored)
    history = new_history(stored)
    params = sample(stored.spec.search, history.begin(first, RandomSampler(seed=3)))
    history.store_params()
    leases.release(stored.engine, first)
    again = claim(stored, BOB)
    other = new_history(stored)
    assert sample(stored.spec.search, other.begin(again, RandomSampler(seed=4))) == params
    other.store_params()
    assert stored.storage.get_trial(again.trial_id).params == params


def test_parameters_of_a_trial_that_was_lost_are_not_stored(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    history = new_history(stored)
    sample(stored.spec.search, history.begin(claimed, RandomSampler(seed=3)))
    leases.release(stored.engine, claimed)
    with pytest.raises(LeaseLostError):
        history.store_params()
    assert stored.storage.get_trial(claimed.trial_id).params == {}


def test_tpe_proposes_what_it_would_propose_over_plain_optuna(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=30)
    history = new_history(stored)
    config = TpeConfig(num_startup_trials=5)
    teachers = 0
    for _ in range(14):
        claimed = claim(stored)
        # Somebody else's trial runs too, as it does on a cluster.
        busy = claim(stored, BOB) if claimed.number == 6 else None
        trial = history.begin(claimed, config.build(7, claimed.number))
        params = sample(stored.spec.search, trial)
        stored.spec.trial_config(params, claimed.number)
        teachers += "method.drg.teacher" in params
        plain = optuna.load_study(
            study_name="tiny",
            storage=stored.storage,
            sampler=config.build(7, claimed.number),
        )
        plain.get_trials()
        expected = sample(stored.spec.search, optuna.Trial(plain, claimed.trial_id))
        assert params == expected, claimed.number
        history.store_params()
        finish(stored, claimed, 0.5 + 0.02 * claimed.number)
        assert busy is None or leases.renew(stored.engine, busy)
    assert 0 < teachers < 14


def test_the_trial_in_hand_is_known_without_reading(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_study()
    other, claimed = claim(stored), claim(stored)
    history = new_history(stored)
    history.begin(claimed, RandomSampler())
    reads: list[int] = []
    real = stored.storage.get_trial

    def counted(trial_id: int) -> FrozenTrial:
        reads.append(trial_id)
        return real(trial_id)

    monkeypatch.setattr(stored.storage, "get_trial", counted)
    assert history.get_trial(claimed.trial_id).number == 1
    assert reads == []
    assert history.get_trial(other.trial_id).number == 0
    assert reads == [other.trial_id]


def test_going_back_forgets_curve_and_marks_after_the_checkpoint(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    for epoch in range(4):
        trial_writes.write_report(stored.engine, claimed, epoch, 0.1 * epoch)
    marks = {"completed_rung_0": 0.1, "completed_rung_1": 0.2}
    trial_writes.write_attributes(stored.engine, claimed, system=marks)
    history = new_history(stored)
    history.rewind([], [])
    history.begin(claimed, RandomSampler())
    history.rewind([0.0, 0.1], ["completed_rung_1", "missing"])
    trial = history.get_trial(claimed.trial_id)
    assert trial.intermediate_values == {0: 0.0, 1: 0.1}
    assert "completed_rung_0" in trial.system_attrs
    assert "completed_rung_1" not in trial.system_attrs


# What it writes


@pytest.mark.parametrize("kind", ["user", "system"])
def test_an_attribute_of_the_trial_in_hand_is_stored_at_once(
    kind: str, make_study: MakeStudy
) -> None:
    stored = make_study()
    claimed = claim(stored)
    history = new_history(stored)
    history.begin(claimed, RandomSampler())
    getattr(history, f"set_trial_{kind}_attr")(claimed.trial_id, "mark", 0.5)
    for trial in (history.get_trial(claimed.trial_id), begun(stored)[0]):
        assert getattr(trial, f"{kind}_attrs")["mark"] == 0.5


@pytest.mark.parametrize("kind", ["user", "system"])
def test_an_attribute_of_a_trial_that_was_lost_is_refused(
    kind: str, make_study: MakeStudy
) -> None:
    stored = make_study()
    claimed = claim(stored)
    history = new_history(stored)
    history.begin(claimed, RandomSampler())
    leases.release(stored.engine, claimed)
    claim(stored, BOB)
    with pytest.raises(LeaseLostError):
        getattr(history, f"set_trial_{kind}_attr")(claimed.trial_id, "mark", 0.5)
    for trial in (history.get_trial(claimed.trial_id), begun(stored)[0]):
        assert "mark" not in getattr(trial, f"{kind}_attrs")


def test_the_pruner_leaves_its_marks_in_the_storage(make_study: MakeStudy) -> None:
    stored = make_study("pruner={name: asha, min_epochs: 1, reduction_factor: 2}")
    verdicts = []
    for value in (0.5, 0.9, 0.1):
        claimed = claim(stored)
        history = new_history(stored)
        history.begin(claimed, RandomSampler())
        trial_writes.write_report(stored.engine, claimed, 0, value)
        trial = history.get_trial(claimed.trial_id)
        trial.intermediate_values[0] = value
        study = history.study()
        verdicts.append(study.pruner.prune(study, trial))
        assert begun(stored)[-1].system_attrs["completed_rung_0"] == value
    assert verdicts == [False, False, True]


@pytest.mark.parametrize(
    "write",
    [
        lambda history, key: history.set_trial_user_attr(key, "a", 1),
        lambda history, key: history.set_trial_system_attr(key, "a", 1),
        lambda history, key: history.set_trial_param(
            key, "x", 0.5, optuna.distributions.FloatDistribution(0, 1)
        ),
    ],
)
def test_only_the_trial_in_hand_is_written(
    write: Callable[[TrialHistory, int], None], make_study: MakeStudy
) -> None:
    stored = make_study()
    other, claimed = claim(stored), claim(stored)
    history = new_history(stored)
    with pytest.raises(ValueError, match="is not the one in hand"):
        write(history, claimed.trial_id)
    history.begin(claimed, RandomSampler())
    with pytest.raises(ValueError, match=f"key {other.trial_id} is not the one in hand"):
        write(history, other.trial_id)
    write(history, claimed.trial_id)


def test_without_a_trial_in_hand_there_are_no_parameters_to_store(make_study: MakeStudy) -> None:
    with pytest.raises(ValueError, match="no trial is in hand"):
        new_history(make_study()).store_params()


@pytest.mark.parametrize(
    "write",
    [
        lambda history, study_id: history.create_new_study([StudyDirection.MAXIMIZE]),
        lambda history, study_id: history.create_new_trial(study_id),
        lambda history, study_id: history.delete_study(study_id),
        lambda history, study_id: history.set_study_user_attr(study_id, "a", 1),
        lambda history, study_id: history.set_study_system_attr(study_id, "a", 1),
        lambda history, study_id: history.get_all_studies(),
        lambda history, study_id: history.set_trial_state_values(1, TrialState.COMPLETE, [1.0]),
        lambda history, study_id: history.set_trial_intermediate_value(1, 0, 0.5),
    ],
)
def test_a_worker_neither_creates_nor_deletes_nor_ends_anything_through_it(
    write: Callable[[TrialHistory, int], None], make_study: MakeStudy
) -> None:
    stored = make_study()
    before = stored.storage.get_all_trials(stored.study_id)
    with pytest.raises(NotImplementedError):
        write(new_history(stored), stored.study_id)
    assert stored.storage.get_all_trials(stored.study_id) == before


def test_the_study_is_the_stored_one(make_study: MakeStudy) -> None:
    stored = make_study()
    study = new_history(stored).study()
    assert study.study_name == "tiny"
    assert study.direction is StudyDirection.MAXIMIZE
    assert study.user_attrs == stored.study.user_attrs
    assert study.metric_names == stored.study.metric_names
    assert study.pruner is stored.study.pruner


def test_a_look_waits_for_a_storage_that_is_away(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_study()
    finish(stored, claim(stored))
    real = stored.storage._get_trials
    failures = iter(range(3))

    def fails_at_first(*arguments: Any) -> list[FrozenTrial]:
        if next(failures, None) is not None:
            raise sa.exc.OperationalError("SELECT", None, Exception("restarting"))
        return real(*arguments)

    monkeypatch.setattr(stored.storage, "_get_trials", fails_at_first)
    history = TrialHistory(TrialQueue(stored, Patience(outage_s=1e9, sleep=lambda seconds: None)))
    assert seen(history, stored) == {0: TrialState.COMPLETE}
