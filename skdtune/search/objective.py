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
from skdtune.data.registry import SearchData, load_search_data
from skdtune.errors import CheckpointError
from skdtune.report import Verdict
from skdtune.search.reporter import TrialReporter
from skdtune.search.study import StoredStudy, versions
from skdtune.space import sample
from skdtune.training.device import describe_device, describe_kernels
from skdtune.training.trainer import Trainer


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


def resolve_trial(stored: StoredStudy, trial: optuna.Trial) -> TrialConfig:
    """Sample a trial's parameters and resolve them into its configuration."""
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
) -> Verdict:
    """Train one trial, from its newest checkpoint on if it has one.

    Args:
        config: The trial's full configuration.
        store: The worker's data.
        reporter: Takes note of each epoch.
        record_start: Stores what is needed to repeat the trial.

    Returns:
        CONTINUE if it ran to its end, PRUNE or INTERRUPT if it was left.

    Raises:
        NonFiniteLossError: If a training loss became NaN or infinite.
        LeaseLostError: If the trial is not this worker's any more.
        StorageAwayError: If the storage was away for too long.
    """
    data = store.get(config.data)
    trainer = build_trainer(config, data)
    record_start(describe_start(trainer, data, reporter.stored.spec.digest))
    try:
        verdict = reporter.resume(trainer)
    except CheckpointError as error:
        reporter.say(f"its checkpoint is of no use, it starts over: {error}")
        trainer = build_trainer(config, data)
        verdict = reporter.start_over(trainer)
    if verdict is Verdict.CONTINUE:
        verdict = trainer.run(reporter, first_epoch=len(reporter.epochs))
    return verdict if verdict is Verdict.INTERRUPT else _settled(reporter, verdict)


def _settled(reporter: TrialReporter, verdict: Verdict) -> Verdict:
    return verdict if verdict is Verdict.PRUNE else reporter.settle()


def build_trainer(config: TrialConfig, data: DataOnDevice) -> Trainer:
    """Build the training of a trial on its worker's device."""
    return Trainer(config, data.train, data.val, data.num_classes, data.train.device)


def describe_start(trainer: Trainer, data: DataOnDevice, digest: str) -> dict[str, Any]:
    """Return the user attributes that are needed to repeat a trial."""
    return {
        "device": f"{trainer.device} ({describe_device(trainer.device)})",
        "precision": str(trainer.dtype or torch.float32).removeprefix("torch."),
        "kernels": describe_kernels(trainer.device),
        "threads": torch.get_num_threads(),
        "seed": trainer.config.seed,
        "spec_hash": digest,
        "data_fingerprint": data.fingerprint,
        "num_val_images": len(data.val),
        "versions": {**versions(), "torch": torch.__version__},
    }
