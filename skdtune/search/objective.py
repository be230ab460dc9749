"""One trial: sample, resolve, train, report. The only bridge between torch and Optuna."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
import torch

from skdtune.config import DataConfig, TrialConfig
from skdtune.data.batches import DeviceImages
from skdtune.data.registry import SearchData, load_search_data
from skdtune.report import EpochReport, Verdict
from skdtune.rungs import judged_epochs
from skdtune.search.study import StoredStudy, versions
from skdtune.space import sample
from skdtune.training.device import describe_device
from skdtune.training.trainer import Trainer

#: System attribute of a trial with what it recorded epoch by epoch.
CURVES_ATTRIBUTE = "skdtune:curves"


@dataclass(frozen=True)
class DataOnDevice:
    """A study's training and validation images on one device, and where they came from."""

    train: DeviceImages
    val: DeviceImages
    num_classes: int
    fingerprint: str


class DataStore:
    """Loads a data set once for all trials of a worker that use it.

    Args:
        data_dir: Where data sets lie.
        cache_dir: Where decoded images lie.
        device: Where the images go.
    """

    def __init__(self, data_dir: Path, cache_dir: Path, device: torch.device) -> None:
        self._data_dir = data_dir
        self._cache_dir = cache_dir
        self._device = device
        self._loaded: Callable[[DataConfig], DataOnDevice] = lru_cache(maxsize=2)(self._load)

    def get(self, config: DataConfig) -> DataOnDevice:
        """Return the images of some settings; batches and augmentation do not matter to them."""
        batching = ("batch_size", "crop", "crop_padding", "flip")
        return self._loaded(DataConfig(**config.model_dump(exclude=set(batching))))

    def _load(self, config: DataConfig) -> DataOnDevice:
        data: SearchData = load_search_data(
            config, data_dir=self._data_dir, cache_dir=self._cache_dir
        )
        train, val = (
            DeviceImages(images, data.mean_C, data.std_C, self._device)
            for images in (data.train, data.val)
        )
        return DataOnDevice(train, val, data.train.num_classes, data.fingerprint)


@dataclass
class TrialReporter:
    """Writes a trial's curve to the storage and asks the pruner at the rungs.

    Args:
        stored: The study.
        trial: The trial in hand.
        is_stopped: Tells whether the worker must leave the trial at once.
        on_epoch: Called after each epoch, for progress on the terminal.
    """

    stored: StoredStudy
    trial: optuna.Trial
    is_stopped: Callable[[], bool]
    on_epoch: Callable[[EpochReport], None]
    epochs: list[EpochReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        spec = self.stored.spec
        self._rungs = judged_epochs(spec.pruner, spec.budget.epochs)

    def epoch_finished(self, report: EpochReport) -> Verdict:
        """Store the validation accuracy of an epoch and judge the trial if it is at a rung."""
        self.epochs.append(report)
        self.stored.study._storage.set_trial_intermediate_value(
            self.trial._trial_id, report.epoch, report.val_accuracy
        )
        self.on_epoch(report)
        if report.epoch + 1 in self._rungs and self._is_pruned(report.epoch):
            return Verdict.PRUNE
        return Verdict.INTERRUPT if self.is_stopped() else Verdict.CONTINUE

    def interrupted(self) -> bool:
        """Tell whether the worker must leave the trial at once."""
        return self.is_stopped()

    def value(self) -> float:
        """Return the objective: the mean validation accuracy of the last epochs."""
        window = self.epochs[-self.stored.spec.objective.window_epochs :]
        return sum(report.val_accuracy for report in window) / len(window)

    def _is_pruned(self, epoch: int) -> bool:
        study = self.stored.study
        trial = copy.copy(study._storage.get_trial(self.trial._trial_id))
        # A trial that starts over after its worker died has later epochs in its curve already.
        trial.intermediate_values = {
            step: value for step, value in trial.intermediate_values.items() if step <= epoch
        }
        return study.pruner.prune(study, trial)


def resolve_trial(stored: StoredStudy, trial: optuna.Trial) -> TrialConfig:
    """Sample a trial's parameters and resolve them into its configuration."""
    params = sample(stored.spec.search, trial, stored.spec.fixed_values())
    return stored.spec.trial_config(params, trial.number)


def run_trial(config: TrialConfig, store: DataStore, reporter: TrialReporter) -> Verdict:
    """Train one trial and leave its record on it.

    Returns:
        CONTINUE if it ran to its end, PRUNE or INTERRUPT if it was left.

    Raises:
        NonFiniteLossError: If a training loss became NaN or infinite.
    """
    data = store.get(config.data)
    trainer = Trainer(config, data.train, data.val, data.num_classes, data.train.device)
    record_start(reporter, trainer, data)
    verdict = trainer.run(reporter)
    if verdict is not Verdict.INTERRUPT:
        record_end(reporter)
    return verdict


def record_start(reporter: TrialReporter, trainer: Trainer, data: DataOnDevice) -> None:
    """Note on the trial what is needed to repeat it."""
    set_attribute = reporter.trial.set_user_attr
    set_attribute("device", f"{trainer.device} ({describe_device(trainer.device)})")
    set_attribute("precision", str(trainer.dtype or torch.float32).removeprefix("torch."))
    set_attribute("seed", trainer.config.seed)
    set_attribute("spec_hash", reporter.stored.spec.digest)
    set_attribute("data_fingerprint", data.fingerprint)
    set_attribute("num_val_images", len(data.val))
    set_attribute("versions", {**versions(), "torch": torch.__version__})


def record_end(reporter: TrialReporter) -> None:
    """Note on the trial how its epochs went.

    What people look at are user attributes, short enough for one line of the dashboard; the
    curves by epoch are one system attribute, ``skdtune:curves``.
    """
    epochs = reporter.epochs
    storage, trial = reporter.stored.study._storage, reporter.trial
    curves: dict[str, Any] = {
        "epoch_seconds": [_short(report.seconds) for report in epochs],
        "val_loss": [_short(report.val_loss) for report in epochs],
        "lr": [_short(report.lr) for report in epochs],
        "losses": [
            {name: _short(value) for name, value in report.losses.items()} for report in epochs
        ],
    }
    storage.set_trial_system_attr(trial._trial_id, CURVES_ATTRIBUTE, curves)
    if epochs:
        seconds = statistics.median(report.seconds for report in epochs)
        trial.set_user_attr("epoch_seconds", round(seconds, 3))
        trial.set_user_attr("val_loss", curves["val_loss"][-1])
        trial.set_user_attr("losses", curves["losses"][-1])


def _short(value: float) -> float:
    return float(f"{value:.5g}")
