"""One trial: sample, resolve, train. With its reporter the only bridge of torch and Optuna."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import optuna
import torch

from skdtune.data.store import DataOnDevice, DataStore
from skdtune.data.wall import test_split_open
from skdtune.describe.config import TrialConfig
from skdtune.describe.epoch_report import Verdict
from skdtune.describe.packages import package_versions
from skdtune.describe.space import sample
from skdtune.errors import CheckpointError
from skdtune.queue.checked_values import whole
from skdtune.queue.stored_study import StoredStudy, versions
from skdtune.queue.trial_attributes import (
    DATA_FINGERPRINT,
    THREADS,
    FinalScores,
    describe_start,
)
from skdtune.training.device import arithmetic_on, describe_device
from skdtune.training.trainer import Trainer
from skdtune.worker.preparation import data_of_trial
from skdtune.worker.reporter import TrialReporter
from skdtune.worker.threads import Threads

logger = logging.getLogger(__name__)


def resolve_trial(stored: StoredStudy, trial: optuna.Trial) -> TrialConfig:
    """Sample a trial's parameters and resolve them into its configuration.

    Where the spec has them, and searches nothing, nothing is sampled.
    """
    params = sample(stored.spec.search, trial, stored.spec.fixed_values())
    return stored.spec.trial_config(params, trial.number)


def run_trial(
    config: TrialConfig, store: DataStore, reporter: TrialReporter, threads: Threads
) -> Verdict:
    """Train one trial, from its newest checkpoint on if it has one.

    Args:
        config: The trial's full configuration.
        store: The worker's data.
        reporter: Takes note of each epoch; its hooks are told of a training that ran to its end.
        threads: Those of this process.

    Returns:
        CONTINUE if it ran to its end, PRUNE or INTERRUPT if it was left.

    Raises:
        NonFiniteLossError: If a training loss became NaN or infinite.
        LeaseLostError: If the trial is not this worker's any more.
        StorageAwayError: If the storage was away for too long.
    """
    queue, claim = reporter.queue, reporter.claim
    spec = queue.stored.spec
    data = data_of_trial(store, spec, config)
    trainer = build_trainer(config, data)
    # A checkpoint of a release that named no source is of these images if they decode alike.
    before = reporter.history.get_trial(claim.trial_id).user_attrs.get(DATA_FINGERPRINT)
    try:
        verdict = reporter.resume(trainer, trust_nameless=before == data.fingerprint)
    except CheckpointError as error:
        reporter.say(f"its checkpoint is of no use, it starts over: {error}")
        trainer = build_trainer(config, data)
        verdict = reporter.start_over(trainer)
    _take_threads(threads, trainer, reporter)
    queue.write_attributes(claim, start_of(trainer, data, queue.stored, claim.number))
    if verdict is Verdict.CONTINUE:
        verdict = trainer.run(reporter, first_epoch=len(reporter.epochs))
    if verdict is Verdict.CONTINUE:
        verdict = reporter.settle()
    if verdict is Verdict.CONTINUE:
        if spec.kind.is_tested:
            # The test images are looked at here, once, and nowhere else.
            with test_split_open():
                test = store.test(config.data)
            scores = trainer.score(test.images)
            reporter.test_finished(
                FinalScores(
                    accuracy=scores.accuracy,
                    top5=scores.top5,
                    ece=scores.ece,
                    nll=scores.nll,
                    profile=scores.profile,
                    num_images=len(test.images),
                    fingerprint=test.fingerprint,
                )
            )
        for hook in reporter.hooks:
            hook.trained(trainer, data)
    return verdict


def _take_threads(threads: Threads, trainer: Trainer, reporter: TrialReporter) -> None:
    """Take the threads for a trial, and say what is not as in its epochs so far."""
    before = reporter.began_with
    if threads.take(trainer.layer_work, whole(before.get(THREADS))):
        logger.info("trial %d: %s", reporter.claim.number, threads)
    changed = [
        f"{name} {before[name]} (now {now})"
        for name, now in asdict(arithmetic_on(trainer.device, trainer.dtype)).items()
        # Beside a GPU they decide nothing.
        if not (name == THREADS and trainer.device.type != "cpu")
        if name in before and before[name] != now
    ]
    if changed:
        reporter.say(f"its epochs so far were computed with {', '.join(changed)}")


def build_trainer(config: TrialConfig, data: DataOnDevice) -> Trainer:
    """Build the training of a trial on its worker's device."""
    return Trainer(config, data.train, data.val, data.num_classes, data.train.device)


def start_of(
    trainer: Trainer, data: DataOnDevice, stored: StoredStudy, number: int
) -> dict[str, Any]:
    """Return the user attributes that are needed to repeat a trial."""
    spec = stored.spec
    arithmetic = arithmetic_on(trainer.device, trainer.dtype)
    return describe_start(
        device=f"{trainer.device} ({describe_device(trainer.device)})",
        precision=arithmetic.precision,
        kernels=arithmetic.kernels,
        threads=arithmetic.threads,
        seed=trainer.config.seed,
        spec_hash=stored.digest,
        versions={**versions(), "torch": torch.__version__, **package_versions(spec)},
        kind=spec.kind,
        number=number,
        num_val_images=None if data.val is None else len(data.val),
        data_fingerprint=data.fingerprint,
        source=data.source,
    )
