from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from skdtune.analysis.study_results import TrialResult
from skdtune.analysis.trial_record import TrialRecord, read_trial
from skdtune.describe.kinds.final_evaluation import EvaluationConfig, FinalEvaluation
from skdtune.describe.kinds.search import Search

NAMES = (
    *("device", "precision", "seed", "images", "train_seconds", "peak_memory_mb", "versions"),
    *("num_val_images", "data_fingerprint", "failure_kind", "failure_reason", "test_accuracy"),
)
HOSTILE = [None, "x", -1, 10**400, float("nan"), float("inf"), [1], {"a": [2]}, True, "\x1b[2J"]


def test_plain_data_have_the_fields_of_a_result_in_their_order() -> None:
    plain = TrialRecord(number=3, state="complete", params={"a": 1}).to_dict()
    assert list(plain) == [field.name for field in dataclasses.fields(TrialResult)]


def test_a_complete_trial_is_worth_its_value_any_other_its_last_epoch() -> None:
    steps = {0: 0.5, 1: 0.75}
    complete = create_trial(value=0.625, intermediate_values=steps)
    running = create_trial(state=TrialState.RUNNING, intermediate_values=steps)
    waiting = create_trial(state=TrialState.WAITING)
    read = [read_trial(trial, Search()) for trial in (complete, running, waiting)]
    assert [trial.value for trial in read] == [0.625, 0.75, None]
    assert [trial.epochs for trial in read] == [2, 2, 0]
    assert read[0].curve == ((1, 0.5), (2, 0.75))


def test_the_parameters_and_the_value_of_an_evaluation_are_its_kinds() -> None:
    settings = EvaluationConfig(
        source="tiny", lineage="", digest="", trials=(7,), params=({"optimizer.lr": 0.3},)
    )
    trial = create_trial(value=0.5)
    trial.number = 0
    read = read_trial(trial, FinalEvaluation(settings))
    assert read.params == {"optimizer.lr": 0.3}
    assert read.value_name == "test accuracy"


@pytest.mark.parametrize("value", HOSTILE)
def test_what_others_wrote_is_a_number_a_text_or_nothing(value: Any) -> None:
    hostile = create_trial(
        value=0.5,
        intermediate_values={0: float("nan"), 1: 0.5, -3: 0.25},
        user_attrs=dict.fromkeys(NAMES, value),
        system_attrs={"skdtune:curves": value, "skdtune:profile": value},
    )
    read = read_trial(hostile, Search())
    json.dumps(read.to_dict(), allow_nan=False)
    assert read.curve == ((2, 0.5),)
    assert read.test is None
    assert read.profile is None
    assert all(isinstance(fact, str) for fact in read.facts.values())
