"""What a run came to, as plain data under the names that a trial's attributes have."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from typing import Any

import torch

import skdtune
from skdtune.analysis.verdict import standard_error
from skdtune.data.store import DataStore
from skdtune.data.wall import test_split_open
from skdtune.describe.epoch_report import EpochReport
from skdtune.describe.packages import package_versions
from skdtune.describe.value_format import without_nan
from skdtune.queue.trial_attributes import describe_epochs
from skdtune.runs.plan import RunPlan
from skdtune.runs.preparation import RunData
from skdtune.training.device import arithmetic_on, describe_device
from skdtune.training.trainer import Trainer


def versions_of(plan: RunPlan) -> dict[str, str]:
    """Return the versions that a run is trained with, torch's not among them."""
    return {
        "skdtune": skdtune.__version__,
        "python": platform.python_version(),
        **package_versions(plan.spec),
    }


def summed_up(
    plan: RunPlan, data: RunData, trainer: Trainer, epochs: Sequence[EpochReport]
) -> dict[str, Any]:
    """Sum up a training that ran to its end.

    Args:
        plan: What was trained.
        data: Its images.
        trainer: The training.
        epochs: All its epochs.
    """
    last, images = epochs[-1], data.images
    judged: dict[str, Any] = {}
    if last.val_accuracy is not None and images.val is not None:
        judged = {
            "val_accuracy": last.val_accuracy,
            "val_standard_error": standard_error(last.val_accuracy, len(images.val)),
            "num_val_images": len(images.val),
        }
    attributes, _ = describe_epochs(epochs)
    result = {
        "name": plan.spec.name,
        "run_hash": plan.digest,
        "seed": plan.spec.seed,
        "epochs": len(epochs),
        "trained_on": "train+val" if images.val is None else "train",
        "num_train_images": len(images.train),
        **judged,
        **attributes,
        "device": f"{trainer.device} ({describe_device(trainer.device)})",
        **dataclasses.asdict(arithmetic_on(trainer.device, trainer.dtype)),
        "versions": {**versions_of(plan), "torch": torch.__version__},
        "data_fingerprint": images.fingerprint,
        "source": data.source.digest,
        **({"from": dict(plan.origin)} if plan.origin else {}),
    }
    plain: dict[str, Any] = without_nan(result)
    return plain


def scored_on_test(
    plan: RunPlan, data: RunData, trainer: Trainer, store: DataStore
) -> dict[str, Any]:
    """Look at the test images: here, once, and nowhere else.

    Args:
        plan: What was trained.
        data: Its images; those of the test are normalised as what was learned from.
        trainer: The training, after its last epoch.
        store: The data.
    """
    with test_split_open():
        test = store.test(plan.config.data)
    scores = trainer.score(test.images.normalised_like(data.images.train))
    scored = {
        "test_accuracy": scores.accuracy,
        "test_standard_error": standard_error(scores.accuracy, len(test.images)),
        "num_test_images": len(test.images),
        "test_top5": scores.top5,
        "test_ece": scores.ece,
        "test_nll": scores.nll,
        "test_fingerprint": test.fingerprint,
    }
    plain: dict[str, Any] = without_nan(scored)
    return plain
