"""What a trial leaves behind is read as it was written, and as nothing where it is hostile."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from skdtune.describe.epoch_report import EpochReport
from skdtune.describe.kinds.final_evaluation import EvaluationConfig, FinalEvaluation
from skdtune.describe.kinds.kind import Kind
from skdtune.describe.kinds.search import Search
from skdtune.queue.trial_attributes import (
    PROFILE,
    FinalScores,
    Profile,
    describe_epochs,
    describe_start,
    describe_test,
    read_epochs_seconds,
    read_profile,
    read_test,
)

LAST = {"top5": 0.987654321, "ece": 0.0123456789, "nll": 1 / 3}
SCORES = FinalScores(
    accuracy=1 / 3, top5=0.5, ece=0.1, nll=2.5, profile=(), num_images=450, fingerprint="abc"
)


def a_report(epoch: int, **more: Any) -> EpochReport:
    given: dict[str, Any] = {"val_accuracy": 0.5, "val_loss": 1 / 3, "lr": 0.1} | more
    return EpochReport(epoch=epoch, seconds=1.23456, losses={"drg": 2 / 3}, **given)


def started(kind: Kind) -> dict[str, Any]:
    environment: dict[str, Any] = {"device": "cpu", "precision": "float32", "kernels": "torch"}
    return describe_start(
        **environment,
        threads=1,
        seed=5,
        spec_hash="ef",
        versions={"torch": "2"},
        kind=kind,
        number=3,
        num_val_images=None if kind.learns_from_all_images else 337,
        data_fingerprint="ab",
        source="cd",
    )


def test_a_trial_of_a_search_names_the_images_it_is_judged_on() -> None:
    *_, source, num_val_images, data_fingerprint = started(Search()).items()
    assert source == ("source", "cd")
    assert num_val_images == ("num_val_images", 337)
    assert data_fingerprint == ("data_fingerprint", "ab")


def test_a_trial_of_an_evaluation_names_what_it_trains_again() -> None:
    settings = EvaluationConfig(
        source="tiny", lineage="", digest="", trials=(7, 3), params=({}, {})
    )
    user = started(FinalEvaluation(settings))
    origin = [("evaluated_trial", 3), ("seed_index", 1), ("source", "cd")]
    assert list(user.items())[-3:] == origin
    assert not {"num_val_images", "data_fingerprint"} & user.keys()


def test_a_finished_trial_says_what_it_cost_and_scored() -> None:
    epochs = [
        a_report(0, images=100, profile=[0.6, 0.4]),
        a_report(1, images=150),
        a_report(2, images=100, profile=[0.75, 0.25], scores=LAST),
    ]
    user, system = describe_epochs(epochs)
    assert user["images"] == 350
    assert user["train_seconds"] == 3.704
    assert user["epoch_seconds"] == 1.235
    assert (user["val_top5"], user["val_ece"], user["val_nll"]) == (0.98765, 0.012346, 0.33333)
    assert system[PROFILE] == {"first": [0.6, 0.4], "last": [0.75, 0.25]}


def test_a_trial_that_was_left_early_has_no_last_profile() -> None:
    _, system = describe_epochs([a_report(0, profile=[0.6, 0.4]), a_report(1)])
    assert system[PROFILE] == {"first": [0.6, 0.4]}
    user, system = describe_epochs([a_report(0, profile=[0.6, 0.4])])
    assert system[PROFILE] == {"first": [0.6, 0.4]}
    assert not any(name.startswith("val_t") for name in user)
    assert PROFILE not in describe_epochs([])[1]


def test_scores_on_the_test_images_are_read_as_they_were_written() -> None:
    user, _ = describe_test(SCORES)
    assert read_test(user) == SCORES


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_likelihood_that_is_not_finite_is_a_result(value: float) -> None:
    user, _ = describe_test(dataclasses.replace(SCORES, nll=value))
    read = read_test(user)
    assert read is not None
    assert (read.accuracy, repr(read.nll)) == (SCORES.accuracy, repr(value))


@pytest.mark.parametrize("value", [None, "0.5", True, [0.5], 10**400])
def test_scores_of_which_one_is_no_number_are_none(value: Any) -> None:
    user, _ = describe_test(SCORES)
    assert read_test({**user, "test_ece": value}) is None
    assert read_test({}) is None


def test_the_time_of_its_epochs_is_their_sum() -> None:
    user, system = describe_epochs([a_report(0), a_report(1)])
    assert read_epochs_seconds(user, system) == 2.469
    assert read_epochs_seconds({}, system) == pytest.approx(2.469, rel=1e-4)
    assert read_epochs_seconds({}, {}) is None
    assert read_epochs_seconds({}, {"skdtune:curves": ["x"]}) is None


@pytest.mark.parametrize(
    "stored",
    [None, [], "x", {}, {"first": [1.0]}, {"first": "x", "last": [1]}, {"first": [], "last": []}],
)
def test_what_is_no_profile_is_none(stored: Any) -> None:
    assert read_profile(stored) is None


def test_a_profile_is_cut_and_holds_numbers_only() -> None:
    profile = read_profile({"first": [0.5, "x", float("nan"), 0.1], "last": [0.1] * 5000})
    assert profile == Profile(first=(0.5, 0.1), last=(0.1,) * 100)
