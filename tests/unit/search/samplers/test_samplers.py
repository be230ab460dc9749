from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState

from skdtune.catalogues.samplers import SAMPLERS
from skdtune.describe.space import sample
from skdtune.describe.spec import StudySpec
from skdtune.search.samplers.random import RandomConfig
from skdtune.search.samplers.tpe import TpeConfig


def first_point(sampler: optuna.samplers.BaseSampler) -> float:
    study = optuna.create_study(sampler=sampler)
    return study.ask().suggest_float("x", 0, 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_trial_has_another_seed(name: str) -> None:
    config = SAMPLERS[name].model_validate({"name": name})
    points = [first_point(config.build(0, number)) for number in range(20)]
    assert len(set(points)) == 20
    assert points[0] != first_point(config.build(1, 0))
    assert points == [first_point(config.build(0, number)) for number in range(20)]


def test_the_samplers_are_the_ones_that_were_asked_for() -> None:
    assert type(RandomConfig(name="random").build(0, 0)) is RandomSampler
    assert type(TpeConfig().build(0, 0)) is TPESampler


def history(spec: StudySpec, number: int) -> optuna.Study:
    """Run a few random trials of a space with conditional parameters."""
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=3))
    for index in range(number):
        trial = study.ask()
        params = sample(spec.search, trial)
        bonus = 0.5 if params["method.drg.stages"] == "1+2" else 0.0
        study.tell(trial, bonus + index / 100)
    return study


@pytest.fixture
def spec(make_spec: Callable[..., StudySpec]) -> StudySpec:
    return make_spec(preset="digits-drg-dsr")


def test_a_proposal_can_be_repeated_from_its_history(spec: StudySpec) -> None:
    config = TpeConfig(num_startup_trials=5)
    proposals = []
    for _ in range(2):
        study = history(spec, 12)
        study.sampler = config.build(7, 12)
        proposals.append(sample(spec.search, study.ask()))
    assert proposals[0] == proposals[1]


def test_parallel_workers_do_not_propose_the_same_point(spec: StudySpec) -> None:
    study = history(spec, 12)
    proposals = []
    for number in range(12, 20):
        study.sampler = TpeConfig(num_startup_trials=5).build(7, number)
        proposals.append(str(sample(spec.search, study.ask())))
    assert len(set(proposals)) == 8


def test_tpe_samples_conditional_parameters_together_with_the_others(
    spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = history(spec, 30)
    alone: list[str] = []
    independent = TPESampler.sample_independent

    def spy(sampler: TPESampler, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        alone.append(name)
        return independent(sampler, study, trial, name, distribution)

    monkeypatch.setattr(TPESampler, "sample_independent", spy)
    teachers = 0
    for number in range(30, 50):
        study.sampler = TpeConfig(num_startup_trials=5).build(0, number)
        trial = study.ask()
        params = sample(spec.search, trial)
        teachers += "method.drg.teacher" in params
        study.tell(trial, 0.5)
    assert teachers > 0
    assert alone == []


def test_the_sampler_warns_of_nothing(spec: StudySpec) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = TpeConfig(num_startup_trials=2).build(0, 9)
    study = history(spec, 9)
    study.sampler = sampler
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(spec.search, study.ask())
    assert len(study.get_trials(states=(TrialState.RUNNING,))) == 1


def test_the_first_trials_are_random_before_tpe_takes_over(spec: StudySpec) -> None:
    study = history(spec, 4)
    proposals = []
    for startup in (5, 4, 5):
        study = history(spec, 4)
        study.sampler = TpeConfig(num_startup_trials=startup).build(0, 4)
        proposals.append(sample(spec.search, study.ask()))
    assert proposals[0] == proposals[2] != proposals[1]
    study = history(spec, 4)
    study.sampler = TpeConfig(num_startup_trials=5).build(0, 4)
    assert study.ask().relative_params == {}
