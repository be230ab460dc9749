from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from skdtune.queue import leases, schema, trial_writes
from skdtune.queue.abandoned_trials import find_abandoned, give_back_abandoned
from skdtune.queue.best_trial import best_so_far
from skdtune.queue.events import EventKind, story
from skdtune.queue.foreign_trials import read_checked, without_foreign
from skdtune.queue.history import TrialHistory
from skdtune.queue.leases import Claim, WorkerIdentity
from skdtune.queue.stored_study import StoredStudy, load_study
from skdtune.queue.trial_queue import TrialQueue

MakeStudy = Callable[..., StoredStudy]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)
NOT_MADE = "no worker of skdtune made it"


def claim(stored: StoredStudy) -> Claim:
    found = leases.claim(stored.engine, stored.study_id, ALICE)
    assert found is not None
    return found


def finish(stored: StoredStudy, claimed: Claim, value: float = 0.5) -> None:
    ended = (TrialState.COMPLETE, EventKind.COMPLETE)
    trial_writes.finish(stored.engine, claimed, *ended, value=value, epochs=1)


def foreign(stored: StoredStudy) -> dict[int, str]:
    checked = read_checked(stored.storage, stored.study_id, stored.spec.kind)
    return {one.trial.number: one.foreign for one in checked if one.foreign}


def seen_by_sampler(stored: StoredStudy) -> list[int]:
    history = TrialHistory(TrialQueue(stored))
    return [trial.number for trial in history.get_all_trials(stored.study_id)]


def best(stored: StoredStudy) -> tuple[int, float] | None:
    with stored.engine.connect() as connection:
        return best_so_far(connection, stored.study_id)


def test_what_plain_optuna_made_is_foreign_and_what_a_worker_has_or_made_is_not(
    make_study: MakeStudy,
) -> None:
    stored = make_study(num_trials=8)
    study = stored.study
    finish(stored, claim(stored), 0.25)
    claim(stored)
    told = study.ask()
    study.tell(told, 93.5)
    study.tell(study.ask(), 0.9)
    asked = study.ask()
    asked.report(93.5, 0)
    study.add_trial(optuna.create_trial(value=0.99))
    # These were in a worker's hands as far as they came.
    ended = claim(stored)
    study.tell(ended.number, state=TrialState.FAIL)
    pruned = claim(stored)
    trial_writes.write_report(stored.engine, pruned, 0, 0.125)
    study.tell(pruned.number, state=TrialState.PRUNED)
    assert (ended.number, pruned.number) == (5, 6)
    assert foreign(stored) == dict.fromkeys((2, 3, 4, 8), NOT_MADE)
    assert seen_by_sampler(stored) == [0, 1, 5, 6]
    assert best(stored) == (0, 0.25)
    own = without_foreign(study, stored.storage, stored.spec.kind)
    assert [trial.value for trial in own.trials] == [0.25]


def test_a_value_from_outside_does_not_make_a_workers_trial_a_result(
    make_study: MakeStudy,
) -> None:
    stored = make_study(num_trials=3)
    stored.study.tell(claim(stored).number, 0.9)
    assert foreign(stored) == {0: NOT_MADE}
    assert best(stored) is None
    # A worker gave it back, plain Optuna took it up and left numbers of its own.
    given = claim(stored)
    leases.release(stored.engine, given)
    asked = stored.study.ask()
    assert asked.number == given.number
    asked.report(93.5, 0)
    stored.study.tell(asked, state=TrialState.PRUNED)
    assert foreign(stored)[1].startswith("93.5 is no validation accuracy, which is a share from 0")
    assert seen_by_sampler(stored) == []


@pytest.mark.parametrize("value", [93.5, -0.5, float("inf")])
def test_a_value_that_is_no_accuracy_is_none(value: float, make_study: MakeStudy) -> None:
    stored = make_study(num_trials=2)
    finish(stored, claim(stored), 0.25)
    finish(stored, claim(stored), 0.5)
    repr_of = optuna.storages._rdb.models.TrialValueModel.value_to_stored_repr
    with stored.engine.begin() as connection:
        plain, kind = repr_of(value)
        changed = sa.update(schema.values).values(value=plain, value_type=kind)
        connection.execute(changed.where(schema.values.c.value == 0.5))
    assert foreign(stored) == {
        1: f"{value:g} is no validation accuracy, which is a share from 0 to 1"
    }
    assert best(stored) == (0, 0.25)
    assert seen_by_sampler(stored) == [0]


def test_rows_that_nobody_can_read_hide_no_other(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=9)
    claims = [claim(stored) for _ in range(8)]
    for index, claimed in enumerate(claims):
        finish(stored, claimed, index / 10)
    with stored.engine.begin() as connection:
        for index in (3, 6):
            row = {"trial_id": claims[index].trial_id, "key": "seed", "value_json": "{no JSON"}
            connection.execute(sa.insert(schema.trial_user_attributes).values(row))
    unreadable = "its rows cannot be read (JSONDecodeError)"
    assert foreign(stored) == {3: unreadable, 6: unreadable}
    assert seen_by_sampler(stored) == [0, 1, 2, 4, 5, 7]
    (alone,) = read_checked(stored.storage, stored.study_id, stored.spec.kind, 3)
    assert (alone.trial.state, alone.foreign) == (TrialState.COMPLETE, unreadable)
    assert read_checked(stored.storage, stored.study_id, stored.spec.kind, 77) == []


def test_a_parameter_that_is_no_number_reaches_no_sampler(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=2)
    claimed = claim(stored)
    words = optuna.distributions.CategoricalDistribution(("a", "b"))
    trial_writes.write_params(stored.engine, claimed, {"optimizer.lr": (0.0, words)})
    finish(stored, claimed)
    assert seen_by_sampler(stored) == []


def test_a_study_that_was_copied_by_optuna_keeps_its_results(
    make_study: MakeStudy, ready_url: str
) -> None:
    stored = make_study(num_trials=1)
    finish(stored, claim(stored), 0.25)
    optuna.copy_study(
        from_study_name="tiny",
        from_storage=stored.storage,
        to_storage=stored.storage,
        to_study_name="copy",
    )
    copied = load_study("copy", storage=ready_url)
    assert foreign(copied) == {}
    assert best(copied) == (0, 0.25)
    copied.close()


# Given back


def test_what_was_asked_for_and_left_waits_again_as_it_was_made(make_study: MakeStudy) -> None:
    stored, other = make_study(num_trials=3), make_study(name="other", num_trials=2)
    finish(other, claim(other))
    held = claim(other)
    asked = [stored.study.ask(), stored.study.ask()]
    for trial in asked:
        trial.suggest_float("optimizer.lr", 0.01, 0.5, log=True)
        trial.report(93.5, 0)
        trial.set_user_attr("mine", 1)
    found = find_abandoned(stored.engine)
    assert [(trial.study, trial.number) for trial in found] == [("tiny", 0), ("tiny", 1)]
    stored.study.tell(asked[1], 0.5)
    given = give_back_abandoned(stored.engine, found)
    assert [trial.number for trial in given] == [0], "the other one has ended meanwhile"
    first = stored.storage.get_all_trials(stored.study_id)[0]
    assert (first.state, first.params, first.intermediate_values) == (TrialState.WAITING, {}, {})
    assert (first.user_attrs, first.datetime_start) == ({}, None)
    assert first.system_attrs == {"fixed_params": stored.spec.base_params()}
    (told,) = story(stored.engine, stored.study_id, first._trial_id)
    assert told.kind == "noted"
    assert told.detail.startswith("given back: it was asked for by plain Optuna")
    assert leases.renew(stored.engine, held), "a worker's own is not touched"
    assert find_abandoned(stored.engine) == []
    # A worker trains the published setting after all, and it is a result.
    claimed = claim(stored)
    assert claimed.number == 0
    history = TrialHistory(TrialQueue(stored))
    history.begin(claimed, RandomSampler())
    finish(stored, claimed, 0.75)
    assert foreign(stored) == {1: NOT_MADE}


def test_one_that_a_worker_had_before_keeps_what_the_worker_had(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=1)
    given = claim(stored)
    trial_writes.write_report(stored.engine, given, 0, 0.5)
    trial_writes.write_attributes(stored.engine, given, user={"seed": 7})
    leases.release(stored.engine, given)
    stored.study.ask()
    give_back_abandoned(stored.engine, find_abandoned(stored.engine))
    (trial,) = stored.storage.get_all_trials(stored.study_id)
    assert trial.state is TrialState.WAITING
    assert (trial.intermediate_values, trial.user_attrs) == ({0: 0.5}, {"seed": 7})


def test_nothing_is_given_back_where_nothing_is_abandoned(make_study: MakeStudy) -> None:
    stored = make_study(num_trials=2)
    claim(stored)
    study: Any = optuna.create_study(study_name="somebody's", storage=stored.storage)
    study.ask()
    assert find_abandoned(stored.engine) == [], "a study that skdtune did not make is not its own"
    assert give_back_abandoned(stored.engine, []) == []
