"""One trial: sample, resolve, train. With its reporter the only bridge of torch and Optuna."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
import torch

from skdtune.config import DataConfig, TrialConfig
from skdtune.data.batches import DeviceImages
from skdtune.data.images import short_hash
from skdtune.data.registry import (
    SearchData,
    load_search_data,
    load_test_images,
    load_training_images,
)
from skdtune.data.statistics import channel_statistics
from skdtune.data.wall import require_open, test_split_open
from skdtune.errors import CheckpointError
from skdtune.report import Verdict
from skdtune.search.reporter import FinalScores, TrialReporter
from skdtune.search.study import StoredStudy, versions
from skdtune.search.teacher import require_honest_teacher
from skdtune.space import sample
from skdtune.spec import StudySpec
from skdtune.training.device import describe_device, describe_kernels
from skdtune.training.trainer import Trainer


@dataclass(frozen=True)
class DataOnDevice:
    """What the trials of a study learn from and are judged on, on one device."""

    train: DeviceImages
    val: DeviceImages | None
    """None for a final evaluation, which learns from these images, too."""

    num_classes: int
    fingerprint: str
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeldOut:
    """The test images on one device."""

    images: DeviceImages
    fingerprint: str
    """Identifies them together with the images that are learned from."""


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
        self.device = device
        self._loaded: Callable[[DataConfig], DataOnDevice] = lru_cache(maxsize=2)(self._load)
        self._undivided: Callable[[DataConfig], DataOnDevice]
        self._undivided = lru_cache(maxsize=2)(self._load_undivided)
        self._tested: Callable[[DataConfig], HeldOut] = lru_cache(maxsize=2)(self._load_test)

    def get(self, config: DataConfig) -> DataOnDevice:
        """Return the images of some settings; batches and augmentation do not matter to them."""
        return self._loaded(_without_batching(config))

    def undivided(self, config: DataConfig) -> DataOnDevice:
        """Return the training and the validation images as one, to learn from all of them."""
        return self._undivided(_without_batching(config))

    def test(self, config: DataConfig) -> HeldOut:
        """Return the test images, normalised as the undivided training images are.

        Raises:
            TestSplitClosedError: Outside of a final evaluation.
        """
        require_open("test")
        return self._tested(_without_batching(config))

    def of_study(self, spec: StudySpec) -> DataOnDevice:
        """Return what the trials of a study learn from, as far as its settings are the base's."""
        return self.get(spec.data) if spec.evaluation is None else self.undivided(spec.data)

    def prepare(self, spec: StudySpec) -> None:
        """Load what a study needs, so that missing data are said before a trial is taken."""
        require_honest_teacher(spec, self.of_study(spec).fingerprint)
        if spec.evaluation is not None:
            # Decoded and no more: a training whose test images are missing would be in vain.
            with test_split_open():
                load_test_images(spec.data, data_dir=self._data_dir, cache_dir=self._cache_dir)

    def _load(self, config: DataConfig) -> DataOnDevice:
        data: SearchData = load_search_data(
            config, data_dir=self._data_dir, cache_dir=self._cache_dir
        )
        train, val = (
            DeviceImages(images, data.mean_C, data.std_C, self.device)
            for images in (data.train, data.val)
        )
        names = data.train.class_names
        return DataOnDevice(train, val, data.train.num_classes, data.fingerprint, names)

    def _load_undivided(self, config: DataConfig) -> DataOnDevice:
        full = load_training_images(config, data_dir=self._data_dir, cache_dir=self._cache_dir)
        train = DeviceImages(full, *channel_statistics(full), self.device)
        return DataOnDevice(train, None, full.num_classes, full.fingerprint, full.class_names)

    def _load_test(self, config: DataConfig) -> HeldOut:
        data = self._undivided(config)
        test = load_test_images(config, data_dir=self._data_dir, cache_dir=self._cache_dir)
        mean_C, std_C = (x_C.cpu().numpy() for x_C in (data.train.mean_C, data.train.std_C))
        fingerprint = short_hash(data.fingerprint, test.fingerprint)
        return HeldOut(DeviceImages(test, mean_C, std_C, self.device), fingerprint)


def _without_batching(config: DataConfig) -> DataConfig:
    batching = ("batch_size", "crop", "crop_padding", "flip")
    return DataConfig(**config.model_dump(exclude=set(batching)))


def resolve_trial(stored: StoredStudy, trial: optuna.Trial) -> TrialConfig:
    """Sample a trial's parameters and resolve them into its configuration.

    Those of a final evaluation are in its spec, and nothing is sampled.
    """
    params = sample(stored.spec.search, trial, stored.spec.fixed_values())
    return stored.spec.trial_config(params, trial.number)


def config_hash(config: TrialConfig) -> str:
    """Return the hash of a trial's full configuration: 16 hexadecimal digits."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def run_trial(
    config: TrialConfig,
    store: DataStore,
    reporter: TrialReporter,
    record_start: Callable[[dict[str, Any]], None],
    keep: Callable[[Trainer, DataOnDevice], None] = lambda trainer, data: None,
) -> Verdict:
    """Train one trial, from its newest checkpoint on if it has one.

    Args:
        config: The trial's full configuration.
        store: The worker's data.
        reporter: Takes note of each epoch.
        record_start: Stores what is needed to repeat the trial.
        keep: Given a training that ran to its end, may keep its network.

    Returns:
        CONTINUE if it ran to its end, PRUNE or INTERRUPT if it was left.

    Raises:
        NonFiniteLossError: If a training loss became NaN or infinite.
        LeaseLostError: If the trial is not this worker's any more.
        StorageAwayError: If the storage was away for too long.
    """
    is_evaluation = reporter.stored.spec.evaluation is not None
    data = store.undivided(config.data) if is_evaluation else store.get(config.data)
    trainer = build_trainer(config, data)
    record_start(describe_start(trainer, data, reporter.stored.spec, reporter.claimed.number))
    try:
        verdict = reporter.resume(trainer)
    except CheckpointError as error:
        reporter.say(f"its checkpoint is of no use, it starts over: {error}")
        trainer = build_trainer(config, data)
        verdict = reporter.start_over(trainer)
    if verdict is Verdict.CONTINUE:
        verdict = trainer.run(reporter, first_epoch=len(reporter.epochs))
    if verdict is Verdict.INTERRUPT:
        return verdict
    verdict = _settled(reporter, verdict)
    if verdict is Verdict.CONTINUE:
        if is_evaluation:
            reporter.tested = _test_once(trainer, store)
        keep(trainer, data)
    return verdict


def _test_once(trainer: Trainer, store: DataStore) -> FinalScores:
    """Score a finished training on the test images, which are looked at here and nowhere else."""
    with test_split_open():
        test = store.test(trainer.config.data)
    return FinalScores(trainer.score(test.images), len(test.images), test.fingerprint)


def _settled(reporter: TrialReporter, verdict: Verdict) -> Verdict:
    return verdict if verdict is Verdict.PRUNE else reporter.settle()


def build_trainer(config: TrialConfig, data: DataOnDevice) -> Trainer:
    """Build the training of a trial on its worker's device."""
    return Trainer(config, data.train, data.val, data.num_classes, data.train.device)


def describe_start(
    trainer: Trainer, data: DataOnDevice, spec: StudySpec, number: int
) -> dict[str, Any]:
    """Return the user attributes that are needed to repeat a trial."""
    started = {
        "device": f"{trainer.device} ({describe_device(trainer.device)})",
        "precision": str(trainer.dtype or torch.float32).removeprefix("torch."),
        "kernels": describe_kernels(trainer.device),
        "threads": torch.get_num_threads(),
        "seed": trainer.config.seed,
        "spec_hash": spec.digest,
        "versions": {**versions(), "torch": torch.__version__},
    }
    if spec.evaluation is not None:
        candidate, seed_index = spec.evaluation.place(number)
        trial = spec.evaluation.trials[candidate]
        return started | {"evaluated_trial": trial, "seed_index": seed_index}
    if data.val is not None:
        started["num_val_images"] = len(data.val)
    return started | {"data_fingerprint": data.fingerprint}
