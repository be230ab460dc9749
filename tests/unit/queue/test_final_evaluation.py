from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from optuna.trial import TrialState

from skdtune.describe.identity import derive_seed
from skdtune.describe.kinds.final_evaluation import evaluation_name
from skdtune.describe.spec import StudySpec
from skdtune.errors import SpecError, StudyError
from skdtune.queue import leases, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.final_evaluation import create_evaluation
from skdtune.queue.history import TrialHistory
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.stored_study import (
    StoredStudy,
    create_study,
    expand_family,
    load_study,
)
from skdtune.queue.trial_queue import TrialQueue
from skdtune.worker.objective import resolve_trial

MakeStudy = Callable[..., StoredStudy]
Evaluate = Callable[..., StoredStudy]


def finish(stored: StoredStudy, *values: float | None) -> None:
    """End the next trials as a worker does; None is a trial that failed."""
    history = TrialHistory(TrialQueue(stored))
    for value in values:
        claimed = leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"))
        assert claimed is not None
        sampler = stored.spec.sampler.build(stored.spec.seed, claimed.number)
        resolve_trial(stored, history.begin(claimed, sampler))
        history.store_params()
        state, kind = (
            (TrialState.FAIL, EventKind.ERROR)
            if value is None
            else (TrialState.COMPLETE, EventKind.COMPLETE)
        )
        trial_writes.finish(stored.engine, claimed, state, kind, value=value, epochs=3)


@pytest.fixture
def evaluate(ready_url: str) -> Iterator[Evaluate]:
    """Create or extend an evaluation and open it."""
    opened: list[StoredStudy] = []

    def make(study: str = "tiny", **settings: Any) -> StoredStudy:
        name = create_evaluation(study, storage=ready_url, **settings)
        opened.append(load_study(name, storage=ready_url))
        return opened[-1]

    yield make
    for stored in opened:
        stored.close()


def states(stored: StoredStudy) -> list[str]:
    return [trial.state.name for trial in stored.storage.get_all_trials(stored.study_id)]


@pytest.fixture
def searched(make_study: MakeStudy) -> StoredStudy:
    stored = make_study("budget.epochs=9", num_trials=6)
    finish(stored, 0.5, 0.75, None, 0.5, 0.75, 0.25)
    return stored


def test_the_best_trial_is_evaluated_and_the_lower_number_wins_a_tie(
    searched: StoredStudy, evaluate: Evaluate
) -> None:
    there = evaluate()
    evaluation = there.spec.evaluation
    assert evaluation is not None
    assert there.spec.name == evaluation_name("tiny") == "tiny.test"
    assert evaluation.source == "tiny"
    assert evaluation.lineage == searched.lineage
    assert evaluation.digest == searched.spec.digest
    assert evaluation.trials == (1,)
    assert states(there) == ["WAITING"] * 5
    assert there.study.metric_names == ["test_accuracy"]


def test_candidates_are_ranked_by_value_and_then_by_number(
    searched: StoredStudy, evaluate: Evaluate
) -> None:
    there = evaluate(top=4, num_seeds=2)
    evaluation = there.spec.evaluation
    assert evaluation is not None
    assert evaluation.trials == (1, 4, 0, 3)
    assert states(there) == ["WAITING"] * 8
    trained = searched.study.get_trials()
    for number in range(8):
        candidate, seed_index = evaluation.place(number)
        assert (candidate, seed_index) == (number % 4, number // 4)
        config = there.spec.trial_config({}, number)
        source = trained[evaluation.trials[candidate]]
        searched_config = searched.spec.trial_config(source.params, source.number)
        seed = derive_seed(0, "evaluation", seed_index)
        assert config == searched_config.model_copy(update={"seed": seed})


def test_two_studies_are_evaluated_with_the_same_seeds(
    searched: StoredStudy, make_study: MakeStudy, evaluate: Evaluate
) -> None:
    other = make_study("seed=5", name="other", num_trials=1)
    finish(other, 0.1)
    one, two = evaluate(), evaluate("other")
    seeds = [[s.spec.trial_config({}, n).seed for n in range(5)] for s in (one, two)]
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 5


def test_it_is_created_once_and_only_ever_gets_more_seeds(
    searched: StoredStudy, evaluate: Evaluate
) -> None:
    first = evaluate(top=2, num_seeds=2)
    again = evaluate(top=2, num_seeds=2)
    assert again.study_id == first.study_id
    assert len(states(evaluate(num_seeds=1))) == 4, "never fewer"
    assert len(states(evaluate())) == 4, "what is there is what is meant"
    assert len(states(evaluate(num_seeds=5))) == 10
    assert evaluate().spec.digest == first.spec.digest


@pytest.mark.parametrize("settings", [{"top": 1}, {"top": 3}])
def test_other_candidates_are_refused_with_the_remedy(
    searched: StoredStudy, evaluate: Evaluate, settings: dict[str, int]
) -> None:
    evaluate(top=2)
    with pytest.raises(StudyError, match="evaluates trials 1, 4 of tiny, not ") as no:
        evaluate(**settings)
    assert str(no.value).endswith("choose another --name")
    assert len(states(evaluate(**settings, name="tiny-other"))) == 5 * settings["top"]


def test_a_study_that_goes_on_must_be_meant(make_study: MakeStudy, evaluate: Evaluate) -> None:
    finish(make_study(num_trials=3), 0.5, 0.25)
    with pytest.raises(StudyError, match="'tiny' is not finished: 1 of its trials wait or run;"):
        evaluate()
    assert evaluate(now=True).spec.evaluation is not None


def test_a_study_without_a_complete_trial_has_no_winner(
    make_study: MakeStudy, evaluate: Evaluate
) -> None:
    finish(make_study(num_trials=2), None, None)
    with pytest.raises(StudyError, match="'tiny' has no complete trial to evaluate"):
        evaluate()


def test_more_winners_than_trials_are_refused(searched: StoredStudy, evaluate: Evaluate) -> None:
    with pytest.raises(StudyError, match="has 5 complete trials, and the best 6 are asked for"):
        evaluate(top=6)


def test_an_evaluation_is_not_evaluated(searched: StoredStudy, evaluate: Evaluate) -> None:
    evaluate()
    with pytest.raises(StudyError, match="is itself the final evaluation of tiny: skdtune eval"):
        evaluate("tiny.test")


def test_a_name_that_is_taken_is_refused(
    searched: StoredStudy, make_study: MakeStudy, evaluate: Evaluate
) -> None:
    make_study(name="taken")
    with pytest.raises(StudyError, match="'taken' exists and is no final evaluation of tiny"):
        evaluate(name="taken")
    with pytest.raises(SpecError, match="name"):
        evaluate(name="not a name")


def test_the_evaluation_of_a_deleted_namesake_is_not_taken_for_this_ones(
    searched: StoredStudy, make_study: MakeStudy, evaluate: Evaluate
) -> None:
    evaluate()
    searched.storage.delete_study(searched.study_id)
    finish(make_study("budget.epochs=9", num_trials=2), 0.5, 0.75)
    with pytest.raises(StudyError, match="evaluates an earlier study of the name tiny"):
        evaluate()


def test_its_note_says_what_it_is(searched: StoredStudy, evaluate: Evaluate) -> None:
    note = evaluate(top=2).spec.note()
    assert "Final evaluation of study `tiny`" in note
    assert "test images" in note
    assert "not opened" not in note


def test_a_search_keeps_its_hash(make_spec: Callable[..., StudySpec]) -> None:
    assert "evaluation" not in make_spec().to_json()


# Families


def test_a_name_stands_for_itself_or_for_its_family(
    ready_url: str, make_spec: Callable[..., StudySpec], evaluate: Evaluate
) -> None:
    for name in ("one", "two", "alone"):
        family = "" if name == "alone" else "relatives"
        create_study(make_spec(f"family={family!r}", name=name, num_trials=1), storage=ready_url)
    with contextlib.closing(load_study("one", storage=ready_url)) as one:
        finish(one, 0.5)
    assert evaluate("one").spec.name == "one.test"
    assert expand_family("relatives", storage=ready_url) == ["one", "two"]
    assert expand_family("one", storage=ready_url) == ["one"]
    assert expand_family("alone", storage=ready_url) == ["alone"]
    assert expand_family("nobody", storage=ready_url) == ["nobody"]
