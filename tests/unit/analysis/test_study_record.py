from __future__ import annotations

from skdtune.analysis.study_record import StudyRecord
from skdtune.analysis.trial_record import TrialRecord
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec, parse


def trials_of(*values: float) -> tuple[TrialRecord, ...]:
    return tuple(
        TrialRecord(number=number, state="complete", value=value, params={})
        for number, value in enumerate(values)
    )


def evaluation() -> StudySpec:
    raw = load_spec("digits-drg").model_dump(mode="json")
    raw |= {"search": {}, "pruner": {"name": "none"}}
    settings = {"source": "a", "lineage": "", "digest": "", "trials": [3], "params": [{}]}
    return parse(StudySpec, raw | {"evaluation": settings}, "evaluation")


def test_a_study_names_its_best_and_its_published_setting() -> None:
    trials = trials_of(0.5, 0.75, 0.75)
    study = StudyRecord(spec=load_spec("digits-drg"), trials=trials, num_images=400)
    assert study.best == trials[1]
    assert study.published == trials[0]
    assert study.shown == (trials[1], trials[0])
    assert study.counts["complete"] == 3
    assert study.standard_error(0.5) == 0.025
    assert study.standard_error(None) is None


def test_nothing_of_an_evaluation_is_picked() -> None:
    trials = trials_of(0.5, 0.75)
    study = StudyRecord(spec=evaluation(), trials=trials)
    assert study.best is None
    assert study.published is None
    assert study.shown == (trials[0],)
    assert (study.value_name, study.curve_name) == ("test accuracy", "training loss")
