from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from skdtune.queue import leases, trial_writes
from skdtune.queue.best_trial import best_first, best_so_far
from skdtune.queue.events import EventKind
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.stored_study import StoredStudy

MakeStudy = Callable[..., StoredStudy]

ALICE = WorkerIdentity(device="cpu", token="alice", host="a", pid=11)


def a_trial(number: int, value: float) -> FrozenTrial:
    trial = create_trial(value=value)
    trial.number = number
    return trial


def end(stored: StoredStudy, value: float | None, state: TrialState) -> None:
    claimed = leases.claim(stored.engine, stored.study_id, ALICE)
    assert claimed is not None
    kind = EventKind.COMPLETE if state is TrialState.COMPLETE else EventKind.PRUNED
    trial_writes.finish(stored.engine, claimed, state, kind, value=value, epochs=1)


def test_the_highest_value_is_the_best_and_the_lower_number_wins_a_tie() -> None:
    trials = [a_trial(0, 0.5), a_trial(3, 0.75), a_trial(2, 0.75), a_trial(1, 0.25)]
    assert [trial.number for trial in best_first(trials)] == [2, 3, 0, 1]
    assert best_first([]) == []


def test_a_trial_without_a_value_is_none() -> None:
    nameless = create_trial(state=TrialState.RUNNING)
    assert [trial.number for trial in best_first([nameless, a_trial(4, 0.0)])] == [4]


@pytest.mark.parametrize("values", [(0.5, 0.75, 0.75, 0.25), (0.25,), (0.0, 0.0)])
def test_sql_says_the_same(values: tuple[float, ...], make_study: MakeStudy) -> None:
    stored = make_study(num_trials=8)
    end(stored, 0.99, TrialState.PRUNED)
    with stored.engine.connect() as connection:
        assert best_so_far(connection, stored.study_id) is None
    for value in values:
        end(stored, value, TrialState.COMPLETE)
    complete = stored.study.get_trials(states=(TrialState.COMPLETE,))
    best = best_first(complete)[0]
    with stored.engine.connect() as connection:
        assert best_so_far(connection, stored.study_id) == (best.number, best.value)
