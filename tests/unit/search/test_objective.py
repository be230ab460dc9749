from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
import torch
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from skdtune.data.registry import load_search_data
from skdtune.report import EpochReport, Verdict
from skdtune.search import leases
from skdtune.search.leases import WorkerIdentity
from skdtune.search.objective import (
    CURVES_ATTRIBUTE,
    DataStore,
    TrialReporter,
    record_end,
    resolve_trial,
)
from skdtune.search.study import StoredStudy, create_study, load_study
from skdtune.spec import StudySpec, derive_seed


class Spy(BasePruner):
    """Prunes at one epoch and remembers the curves it was shown."""

    def __init__(self, prune_at: int | None = None) -> None:
        self.shown: list[dict[int, float]] = []
        self._prune_at = prune_at

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        self.shown.append(dict(trial.intermediate_values))
        return trial.last_step == self._prune_at


@pytest.fixture
def stored(sqlite_url: str, make_spec: Callable[..., StudySpec]) -> Iterator[StoredStudy]:
    spec = make_spec(
        "budget.epochs=9", "pruner={name: asha, min_epochs: 2}", "objective.window_epochs=3"
    )
    create_study(spec, storage=sqlite_url)
    opened = load_study(spec.name, storage=sqlite_url)
    yield opened
    opened.close()


def take(stored: StoredStudy) -> optuna.Trial:
    claim = leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"))
    assert claim is not None
    stored.study.get_trials()
    return optuna.Trial(stored.study, claim.trial_id)


def reporter_of(stored: StoredStudy, trial: optuna.Trial, **settings: Any) -> TrialReporter:
    told: dict[str, Any] = {
        "is_stopped": lambda: False,
        "on_epoch": lambda report: None,
    }
    return TrialReporter(stored, trial, **{**told, **settings})


def report(epoch: int, accuracy: float = 0.5) -> EpochReport:
    return EpochReport(
        epoch=epoch,
        val_accuracy=accuracy,
        val_loss=1 / 3,
        losses={"cross_entropy": 2 / 3, "drg": 0.0},
        lr=0.1,
        seconds=1.23456789,
    )


def test_every_epoch_is_stored_and_the_pruner_is_asked_at_the_rungs_only(
    stored: StoredStudy,
) -> None:
    spy = stored.study.pruner = Spy()
    trial = take(stored)
    reporter = reporter_of(stored, trial)
    for epoch in range(9):
        assert reporter.epoch_finished(report(epoch, epoch / 10)) is Verdict.CONTINUE
    assert stored.study.trials[0].intermediate_values == {e: e / 10 for e in range(9)}
    assert [len(curve) for curve in spy.shown] == [2, 6]


def test_the_pruners_word_ends_the_trial(stored: StoredStudy) -> None:
    stored.study.pruner = Spy(prune_at=1)
    reporter = reporter_of(stored, take(stored))
    verdicts = [reporter.epoch_finished(report(epoch)) for epoch in range(2)]
    assert verdicts == [Verdict.CONTINUE, Verdict.PRUNE]


def test_a_second_attempt_is_judged_without_the_epochs_of_the_first(stored: StoredStudy) -> None:
    spy = stored.study.pruner = Spy()
    trial = take(stored)
    for epoch in range(5):
        reporter_of(stored, trial).epoch_finished(report(epoch, 0.9))
    spy.shown.clear()
    second = reporter_of(stored, trial)
    for epoch in range(2):
        second.epoch_finished(report(epoch, 0.1))
    assert spy.shown == [{0: 0.1, 1: 0.1}]
    assert stored.study.trials[0].intermediate_values == {0: 0.1, 1: 0.1, 2: 0.9, 3: 0.9, 4: 0.9}


def test_a_stop_is_passed_on_after_the_epoch_was_stored(stored: StoredStudy) -> None:
    reporter = reporter_of(stored, take(stored), is_stopped=lambda: True)
    assert reporter.interrupted()
    assert reporter.epoch_finished(report(0)) is Verdict.INTERRUPT
    assert stored.study.trials[0].intermediate_values == {0: 0.5}


def test_the_value_is_the_mean_of_the_last_epochs_never_the_best(stored: StoredStudy) -> None:
    reporter = reporter_of(stored, take(stored))
    for epoch, accuracy in enumerate([0.9, 0.9, 0.1, 0.2, 0.6]):
        reporter.epoch_finished(report(epoch, accuracy))
    assert reporter.value() == pytest.approx(0.3)


def test_the_progress_is_told_after_every_epoch(stored: StoredStudy) -> None:
    told: list[int] = []
    reporter = reporter_of(stored, take(stored), on_epoch=lambda r: told.append(r.epoch))
    for epoch in range(3):
        reporter.epoch_finished(report(epoch))
    assert told == [0, 1, 2]


def test_the_record_of_the_epochs_is_left_on_the_trial(stored: StoredStudy) -> None:
    reporter = reporter_of(stored, take(stored))
    for epoch in range(2):
        reporter.epoch_finished(report(epoch))
    record_end(reporter)
    trial = stored.study.trials[0]
    curves = trial.system_attrs[CURVES_ATTRIBUTE]
    assert curves["epoch_seconds"] == [1.2346, 1.2346]
    assert curves["val_loss"] == [0.33333, 0.33333]
    assert curves["losses"] == [{"cross_entropy": 0.66667, "drg": 0.0}] * 2
    assert trial.user_attrs["epoch_seconds"] == 1.235
    assert trial.user_attrs["val_loss"] == 0.33333
    assert trial.user_attrs["losses"] == {"cross_entropy": 0.66667, "drg": 0.0}


def test_a_trial_resolves_to_its_parameters_and_a_seed_of_its_own(stored: StoredStudy) -> None:
    configs = [resolve_trial(stored, take(stored)) for _ in range(3)]
    frozen = stored.study.get_trials()[:3]
    assert all(trial.state is TrialState.RUNNING for trial in frozen)
    for number, (config, trial) in enumerate(zip(configs, frozen, strict=True)):
        assert config.seed == derive_seed(stored.spec.seed, "trial", number)
        assert config.optimizer.lr == trial.params["optimizer.lr"]
        assert config.method.drg is not None
        assert config.method.drg.weight == trial.params["method.drg.weight"]
    assert len({config.seed for config in configs}) == 3
    assert configs[0].optimizer == stored.spec.optimizer


def test_a_worker_loads_its_data_once(
    stored: StoredStudy, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []

    def counted(config: Any, **folders: Any) -> Any:
        loads.append(config)
        return load_search_data(config, **folders)

    monkeypatch.setattr("skdtune.search.objective.load_search_data", counted)
    store = DataStore(tmp_path, tmp_path, torch.device("cpu"))
    first = store.get(stored.spec.data)
    assert store.get(stored.spec.data) is first
    assert len(loads) == 1
    assert (first.num_classes, len(first.fingerprint)) == (10, 12)
    assert first.train.device == torch.device("cpu")
