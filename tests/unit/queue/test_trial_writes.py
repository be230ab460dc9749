from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from skdtune.errors import LeaseLostError
from skdtune.queue import leases, schema, trial_writes
from skdtune.queue.events import EventKind, story
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.stored_study import StoredStudy

MakeStudy = Callable[..., StoredStudy]
Write = Callable[[StoredStudy, Claim], object]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)
BOB = WorkerIdentity(device="cuda:0", token="bob", host="b", pid=22)

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(0.01, 0.5, log=True),
    "depth": IntDistribution(1, 9),
    "stages": CategoricalDistribution(("1", "1+2", "none")),
}
PARAMS = {"lr": 0.25, "depth": 3, "stages": "1+2"}

on_postgres = pytest.mark.parametrize("ready_url", ["postgres"], indirect=True)
on_sqlite = pytest.mark.parametrize("ready_url", ["sqlite"], indirect=True)


def claim(stored: StoredStudy, worker: WorkerIdentity = ALICE) -> Claim:
    found = leases.claim(stored.engine, stored.study_id, worker)
    assert found is not None
    return found


def read(stored: StoredStudy, claimed: Claim) -> FrozenTrial:
    """Read a trial as any program does that knows Optuna and not skdtune."""
    url = stored.engine.url.render_as_string(hide_password=False)
    storage = optuna.storages.RDBStorage(url)
    try:
        study = optuna.load_study(study_name=stored.study.study_name, storage=storage)
        return study.get_trials()[claimed.number]
    finally:
        storage.engine.dispose()


def everything(stored: StoredStudy) -> dict[str, list[Any]]:
    """Read all rows that tell of trials."""
    tables = (
        schema.trials,
        schema.params,
        schema.steps,
        schema.values,
        schema.trial_user_attributes,
        schema.trial_system_attributes,
        schema.events,
    )
    with stored.engine.connect() as connection:
        return {
            table.name: sorted(map(str, connection.execute(sa.select(table)).all()))
            for table in tables
        }


def num_leases(stored: StoredStudy) -> int:
    with stored.engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(schema.leases)) or 0


def kinds(stored: StoredStudy, claimed: Claim) -> list[str]:
    return [event.kind for event in story(stored.engine, claimed.study_id, claimed.trial_id)]


def internal(params: dict[str, Any]) -> dict[str, tuple[float, BaseDistribution]]:
    return {
        name: (DISTRIBUTIONS[name].to_internal_repr(value), DISTRIBUTIONS[name])
        for name, value in params.items()
    }


def params(stored: StoredStudy, claimed: Claim) -> None:
    trial_writes.write_params(stored.engine, claimed, internal(PARAMS))


def attributes(stored: StoredStudy, claimed: Claim) -> None:
    trial_writes.write_attributes(stored.engine, claimed, {"seed": 7}, {"mark": [1, None]})


def report(stored: StoredStudy, claimed: Claim) -> None:
    trial_writes.write_report(stored.engine, claimed, 0, 0.5)


def going_back(stored: StoredStudy, claimed: Claim) -> None:
    trial_writes.rewind(
        stored.engine, claimed, [0.1, 0.2], ["mark"], EventKind.RESUMED, "after epoch 2"
    )


def telling(stored: StoredStudy, claimed: Claim) -> None:
    trial_writes.write_note(stored.engine, claimed, EventKind.NOTED, 2, "a damaged checkpoint")


def finish(stored: StoredStudy, claimed: Claim, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "state": TrialState.COMPLETE,
        "kind": EventKind.COMPLETE,
        "value": 0.75,
        "epochs": 2,
        "detail": "to its end",
        "user": {"seed": 7},
        "system": {"curves": {"lr": [0.1, 0.2]}},
    }
    trial_writes.finish(stored.engine, claimed, **(arguments | changes))


WRITES = [params, attributes, report, going_back, telling, finish]


# What is stored reads back


def test_parameters_read_back_through_optuna(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    params(stored, claimed)
    trial = read(stored, claimed)
    assert trial.params == PARAMS
    assert trial.distributions == DISTRIBUTIONS


def test_parameters_are_stored_as_optuna_stores_them(make_study: MakeStudy) -> None:
    stored = make_study()
    ours, theirs = claim(stored), claim(stored)
    params(stored, ours)
    for name, (value, distribution) in internal(PARAMS).items():
        stored.storage.set_trial_param(theirs.trial_id, name, value, distribution)
    columns = [c for c in schema.params.c if c.name not in ("param_id", "trial_id")]
    with stored.engine.connect() as connection:
        rows = [
            sorted(
                map(str, connection.execute(sa.select(*columns).where(of == one.trial_id)).all())
            )
            for of in [schema.params.c.trial_id]
            for one in (ours, theirs)
        ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3


def test_no_parameters_are_none(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    trial_writes.write_params(stored.engine, claimed, {})
    assert read(stored, claimed).params == {}


def test_attributes_read_back_and_are_replaced(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    attributes(stored, claimed)
    trial_writes.write_attributes(stored.engine, claimed, {"seed": 8, "new": "ä" * 5000})
    trial = read(stored, claimed)
    assert trial.user_attrs == {"seed": 8, "new": "ä" * 5000}
    assert trial.system_attrs["mark"] == [1, None]


def test_a_curve_reads_back_and_an_epoch_is_replaced(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    for epoch, value in ((0, 0.25), (1, 0.5), (0, 1 / 3)):
        trial_writes.write_report(stored.engine, claimed, epoch, value)
    assert read(stored, claimed).intermediate_values == {0: 1 / 3, 1: 0.5}


def test_a_note_is_told_in_the_story(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    telling(stored, claimed)
    *_, event = story(stored.engine, stored.study_id, claimed.trial_id)
    assert (event.kind, event.epochs, event.detail) == ("noted", 2, "a damaged checkpoint")


@pytest.mark.parametrize(
    ("state", "kind", "value"),
    [
        (TrialState.COMPLETE, EventKind.COMPLETE, 0.75),
        (TrialState.COMPLETE, EventKind.COMPLETE, 0.0),
        (TrialState.PRUNED, EventKind.PRUNED, 0.2),
        (TrialState.PRUNED, EventKind.NAN, None),
        (TrialState.FAIL, EventKind.OOM, None),
    ],
)
def test_an_end_reads_back_through_optuna(
    state: TrialState, kind: EventKind, value: float | None, make_study: MakeStudy
) -> None:
    stored = make_study()
    claimed = claim(stored)
    params(stored, claimed)
    going_back(stored, claimed)
    finish(stored, claimed, state=state, kind=kind, value=value)
    trial = read(stored, claimed)
    assert (trial.state, trial.value, trial.params) == (state, value, PARAMS)
    assert trial.intermediate_values == {0: 0.1, 1: 0.2}
    assert trial.user_attrs == {"seed": 7}
    assert trial.system_attrs["curves"] == {"lr": [0.1, 0.2]}
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    assert trial.datetime_complete >= trial.datetime_start
    assert kinds(stored, claimed)[-1] == kind.value
    assert num_leases(stored) == 0


def test_a_pruned_trial_has_the_value_that_optuna_gives_one(make_study: MakeStudy) -> None:
    stored = make_study()
    ours, theirs = claim(stored), claim(stored)
    for one in (ours, theirs):
        going_back(stored, one)
    finish(stored, ours, state=TrialState.PRUNED, kind=EventKind.PRUNED, value=0.2)
    stored.study.tell(theirs.number, state=TrialState.PRUNED)
    assert read(stored, ours).value == read(stored, theirs).value == 0.2


def test_the_best_trial_is_found_by_optuna(make_study: MakeStudy) -> None:
    stored = make_study()
    for value in (0.5, 0.75, 0.25):
        finish(stored, claim(stored), value=value)
    assert stored.study.best_trial.number == 1
    assert stored.study.best_value == 0.75


# Going back to a checkpoint

values = st.floats(0, 1)


@on_sqlite
@given(
    before=st.dictionaries(st.integers(0, 9), values),
    curve=st.lists(values, max_size=10),
    gone=st.sets(st.sampled_from(["completed_rung_0", "completed_rung_1", "missing"])),
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_going_back_leaves_exactly_the_curve_of_the_checkpoint(
    before: dict[int, float], curve: list[float], gone: set[str], make_study: MakeStudy
) -> None:
    stored = make_study(num_trials=5)
    claimed, other = claim(stored), claim(stored)
    marks = {"completed_rung_0": 0.1, "completed_rung_1": 0.2, "kept": 1}
    for one in (claimed, other):
        for epoch, value in before.items():
            trial_writes.write_report(stored.engine, one, epoch, value)
        trial_writes.write_attributes(stored.engine, one, {"seed": 7}, marks)
    for _ in range(2):
        trial_writes.rewind(stored.engine, claimed, curve, gone, EventKind.RESUMED, "")
        trial, untouched = stored.storage.get_all_trials(stored.study_id)[:2]
        assert trial.intermediate_values == dict(enumerate(curve))
        assert {m: v for m, v in trial.system_attrs.items() if m != "fixed_params"} == {
            mark: value for mark, value in marks.items() if mark not in gone
        }
        assert trial.user_attrs == {"seed": 7}
        assert untouched.intermediate_values == before
        assert untouched.system_attrs.keys() >= marks.keys()
    optuna.delete_study(study_name=stored.study.study_name, storage=stored.storage)
    stored.close()


@pytest.mark.parametrize("kind", [EventKind.RESUMED, EventKind.RESTARTED])
def test_going_back_is_told_with_the_epochs_of_the_checkpoint(
    kind: EventKind, make_study: MakeStudy
) -> None:
    stored = make_study()
    claimed = claim(stored)
    trial_writes.rewind(stored.engine, claimed, [0.1] * 3, [], kind, "from there")
    *_, event = story(stored.engine, stored.study_id, claimed.trial_id)
    assert (event.kind, event.epochs, event.detail) == (kind.value, 3, "from there")


@on_postgres
def test_going_back_works_with_tens_of_thousands_of_epochs(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    curve = [0.5] * 20_000
    trial_writes.rewind(stored.engine, claimed, curve, [], EventKind.RESUMED, "")
    with stored.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.steps)) == 20_000


# Twice is once


@pytest.mark.parametrize("write", [params, attributes, report, finish])
def test_a_write_whose_answer_was_lost_may_be_made_again(
    write: Write, make_study: MakeStudy
) -> None:
    stored = make_study()
    claimed = claim(stored)
    write(stored, claimed)
    once = everything(stored)
    write(stored, claimed)
    assert everything(stored) == once


def test_going_back_twice_is_told_twice_and_changes_nothing_else(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    going_back(stored, claimed)
    once = everything(stored)
    going_back(stored, claimed)
    twice = everything(stored)
    assert {**twice, "skdtune_event": []} == {**once, "skdtune_event": []}


def test_an_end_that_was_stored_is_not_replaced_by_another(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    finish(stored, claimed)
    once = everything(stored)
    finish(stored, claimed, state=TrialState.FAIL, kind=EventKind.TIMEOUT, value=None)
    assert everything(stored) == once


# Somebody else's


def given_back(stored: StoredStudy, claimed: Claim) -> None:
    leases.release(stored.engine, claimed)


def taken_over(stored: StoredStudy, claimed: Claim) -> None:
    leases.release(stored.engine, claimed)
    assert claim(stored, BOB).trial_id == claimed.trial_id


def taken_again(stored: StoredStudy, claimed: Claim) -> None:
    leases.release(stored.engine, claimed)
    assert claim(stored, ALICE).trial_id == claimed.trial_id


def finished_by_its_successor(stored: StoredStudy, claimed: Claim) -> None:
    leases.release(stored.engine, claimed)
    finish(stored, claim(stored, BOB))


def finished_by_a_later_attempt(stored: StoredStudy, claimed: Claim) -> None:
    leases.release(stored.engine, claimed)
    finish(stored, claim(stored, ALICE))


def ended_from_outside(stored: StoredStudy, claimed: Claim) -> None:
    stored.storage.set_trial_state_values(claimed.trial_id, TrialState.FAIL)


def study_deleted(stored: StoredStudy, claimed: Claim) -> None:
    optuna.delete_study(study_name=stored.study.study_name, storage=stored.storage)


LOSSES = [
    given_back,
    taken_over,
    taken_again,
    finished_by_its_successor,
    finished_by_a_later_attempt,
    ended_from_outside,
    study_deleted,
]


@pytest.mark.product(ready_url=("sqlite", "postgres"), loss=LOSSES, write=WRITES)
def test_a_former_owner_changes_nothing(loss: Write, write: Write, make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    loss(stored, claimed)
    before = everything(stored)
    with pytest.raises(LeaseLostError):
        write(stored, claimed)
    assert everything(stored) == before


def test_a_trial_that_another_study_has_under_the_same_key_is_not_touched(
    make_study: MakeStudy,
) -> None:
    stored = make_study(num_trials=1)
    claimed = claim(stored)
    study_deleted(stored, claimed)
    new = make_study(num_trials=1)
    taken = claim(new, BOB)
    before = everything(new)
    for write in WRITES:
        with pytest.raises(LeaseLostError):
            write(new, claimed)
    assert everything(new) == before
    assert leases.renew(new.engine, taken)


@pytest.mark.parametrize("reason", [EventKind.ERROR, EventKind.LOST])
def test_an_end_is_not_believed_to_be_stored_because_the_trial_was_given_back_and_ended_outside(
    reason: EventKind, make_study: MakeStudy
) -> None:
    stored = make_study()
    claimed = claim(stored)
    leases.release(stored.engine, claimed, reason)
    stored.storage.set_trial_state_values(claimed.trial_id, TrialState.FAIL)
    with pytest.raises(LeaseLostError):
        finish(stored, claimed)


# All or nothing


@pytest.mark.parametrize("step", ["_upsert_steps", "_upsert_attributes", "note"])
def test_an_end_that_fails_half_way_leaves_everything_as_it_was(
    step: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_study()
    claimed = claim(stored)
    report(stored, claimed)
    before = everything(stored)
    real = getattr(trial_writes, step)

    def fails_at_the_end(*arguments: Any, **settings: Any) -> None:
        real(*arguments, **settings)
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(trial_writes, step, fails_at_the_end)
        with pytest.raises(RuntimeError, match="the disk is full"):
            finish(stored, claimed)
    assert everything(stored) == before
    assert leases.renew(stored.engine, claimed)
    finish(stored, claimed)
    assert read(stored, claimed).state is TrialState.COMPLETE


def test_an_attribute_that_cannot_be_stored_stores_none(make_study: MakeStudy) -> None:
    stored = make_study()
    claimed = claim(stored)
    before = everything(stored)
    with pytest.raises(TypeError, match="not JSON serializable"):
        trial_writes.write_attributes(stored.engine, claimed, {"good": 1}, {"bad": object()})
    assert everything(stored) == before
