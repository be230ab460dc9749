"""What a trial leaves beside its value and its curve: each attribute's name, writer and reader.

User attributes are what people look at, short enough for a line of the dashboard; system
attributes are for skdtune. Readers trust nobody: what is not what it should be is not there.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skdtune.describe.epoch_report import EpochReport
from skdtune.describe.kinds.kind import Kind
from skdtune.queue.checked_values import count, measured, number

# System attributes

#: What a trial recorded epoch by epoch.
CURVES = "skdtune:curves"
#: Parameters that a person chose before the trial began, by name, as Optuna calls them; trial 0
#: has those of the base configuration.
QUEUED_PARAMS = "fixed_params"
#: Finished epochs up to which the rungs of a trial were judged.
JUDGED_EPOCHS = "skdtune:judged_epochs"
#: Mean sorted probabilities after the first and the last epoch.
PROFILE = "skdtune:profile"

# User attributes: where and with what a trial runs, from its start

DEVICE = "device"
PRECISION = "precision"
KERNELS = "kernels"
THREADS = "threads"
SEED = "seed"
SPEC_HASH = "spec_hash"
VERSIONS = "versions"
NUM_VAL_IMAGES = "num_val_images"
#: Identifies the training and validation images; in a final evaluation those of the test, too.
DATA_FINGERPRINT = "data_fingerprint"
#: Identifies what the training images come from, before they are decoded and divided.
SOURCE = "source"

# User attributes: what it came to

EPOCH_SECONDS = "epoch_seconds"
TRAIN_SECONDS = "train_seconds"
IMAGES = "images"
LOSSES = "losses"
VAL_LOSS = "val_loss"
PEAK_MEMORY_MB = "peak_memory_mb"
NUM_TEST_IMAGES = "num_test_images"
FAILURE_KIND = "failure_kind"
FAILURE_REASON = "failure_reason"

#: Most values of a profile that are read.
MAX_RANKS = 100


@dataclass(frozen=True, kw_only=True)
class FinalScores:
    """What a trained network scores on the test images."""

    accuracy: float
    top5: float
    ece: float
    nll: float
    profile: Sequence[float] = ()
    """Mean of the sorted probabilities, largest first."""

    num_images: int = 0
    fingerprint: str = ""
    """Identifies the images that were learned from and those of the test."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Mean ranked softmax output over the judged images: largest probability first."""

    first: tuple[float, ...]
    """After the first epoch."""

    last: tuple[float, ...]
    """After the last epoch."""


# Writers


def describe_start(
    *,
    device: str,
    precision: str,
    kernels: str,
    threads: int,
    seed: int,
    spec_hash: str,
    versions: Mapping[str, str],
    kind: Kind,
    number: int,
    num_val_images: int | None,
    data_fingerprint: str,
    source: str = "",
) -> dict[str, Any]:
    """Return the user attributes that are needed to repeat a trial.

    Args:
        device: Where it trains.
        precision: Arithmetic that it trains in.
        kernels: Which form of the layers computes.
        threads: Threads of the process.
        seed: Seed of the trial.
        spec_hash: Hash of the study's spec.
        versions: Versions of what it trains with.
        kind: Kind of the study.
        number: Number of the trial.
        num_val_images: Images that it is judged on, None if it learns from all.
        data_fingerprint: Identifies the images; a trial that is tested writes it with its scores.
        source: Identifies what the training images come from; empty if that is not known.
    """
    started = {
        DEVICE: device,
        PRECISION: precision,
        KERNELS: kernels,
        THREADS: threads,
        SEED: seed,
        SPEC_HASH: spec_hash,
        VERSIONS: dict(versions),
        **kind.origin_of(number),
    }
    if source:
        started[SOURCE] = source
    if kind.is_tested:
        return started
    if num_val_images is not None:
        started[NUM_VAL_IMAGES] = num_val_images
    return started | {DATA_FINGERPRINT: data_fingerprint}


def describe_epochs(epochs: Sequence[EpochReport]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sum up a trial's epochs as user and system attributes.

    What people look at are user attributes, short enough for one line of the dashboard; the
    curves by epoch are one system attribute.
    """
    curves: dict[str, list[Any]] = {
        EPOCH_SECONDS: [_short(report.seconds) for report in epochs],
        VAL_LOSS: [_short(r.val_loss) for r in epochs if r.val_loss is not None],
        "lr": [_short(report.lr) for report in epochs],
        LOSSES: [
            {name: _short(value) for name, value in report.losses.items()} for report in epochs
        ],
    }
    if not epochs:
        return {}, {CURVES: curves}
    first, last = epochs[0], epochs[-1]
    user: dict[str, Any] = {
        EPOCH_SECONDS: round(statistics.median(report.seconds for report in epochs), 3),
        TRAIN_SECONDS: round(sum(report.seconds for report in epochs), 3),
        IMAGES: sum(report.images for report in epochs),
        LOSSES: curves[LOSSES][-1],
    }
    if last.val_loss is not None:
        user[VAL_LOSS] = curves[VAL_LOSS][-1]
    for name, value in (last.scores or {}).items():
        user[score_attribute("val", name)] = _short(value)
    # A trial that was left early has a first one only.
    profiles = {"first": first.profile, "last": last.scores and last.profile}
    shown = {when: [*map(_short, profile)] for when, profile in profiles.items() if profile}
    return user, {CURVES: curves, **({PROFILE: shown} if shown else {})}


def describe_test(scores: FinalScores) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a final evaluation is made for, in full precision, and the profile."""
    user = {
        **{score_attribute("test", name): getattr(scores, name) for name in _TESTED},
        NUM_TEST_IMAGES: scores.num_images,
        DATA_FINGERPRINT: scores.fingerprint,
    }
    return user, {PROFILE: {"last": [*map(_short, scores.profile)]}}


def describe_failure(kind: str, reason: str) -> dict[str, Any]:
    """Return the user attributes of a trial that went wrong.

    Args:
        kind: What went wrong: ``nan``, ``oom``, ``timeout``, ``error``, ``lost``, ``preempted``.
        reason: One line.
    """
    return {FAILURE_KIND: kind, FAILURE_REASON: reason}


def score_attribute(images: Literal["val", "test"], name: str) -> str:
    """Return the user attribute of a score: ``val_top5``, ``test_accuracy`` and so on."""
    return f"{images}_{name}"


_TESTED = ("accuracy", "top5", "ece", "nll")


def _short(value: float) -> float:
    return float(f"{value:.5g}")


# Readers


def read_test(user: Mapping[str, Any]) -> FinalScores | None:
    """Read what a trial scored on the test images; None unless all of it is there.

    A likelihood that is not finite is a result, too: the seed counts, and who needs the number
    says that it has none.
    """
    accuracy, top5, ece, nll = (measured(user.get(score_attribute("test", n))) for n in _TESTED)
    if accuracy is None or top5 is None or ece is None or nll is None:
        return None
    return FinalScores(
        accuracy=accuracy,
        top5=top5,
        ece=ece,
        nll=nll,
        num_images=count(user.get(NUM_TEST_IMAGES)) or 0,
        fingerprint=str(user.get(DATA_FINGERPRINT)),
    )


def read_profile(stored: Any) -> Profile | None:
    """Read the ranked outputs of a trial; None if there are none, or they are no such thing.

    Args:
        stored: ``{"first": [p1, p2, ...], "last": [...]}``, shares from the largest on.
    """
    if not isinstance(stored, Mapping):
        return None
    first, last = (_shares(stored.get(key)) for key in ("first", "last"))
    return Profile(first=first, last=last) if first and last else None


def _shares(stored: Any) -> tuple[float, ...]:
    if not isinstance(stored, list):
        return ()
    numbers = [number(value) for value in stored[:MAX_RANKS]]
    return tuple(value for value in numbers if value is not None)


def is_queued(system: Mapping[str, Any]) -> bool:
    """Tell whether a person chose parameters of a trial: by ``enqueue`` here or in Optuna."""
    return bool(system.get(QUEUED_PARAMS))


def read_epochs_seconds(user: Mapping[str, Any], system: Mapping[str, Any]) -> float | None:
    """Read the time of a trial's epochs; None where no epoch was timed."""
    seconds = number(user.get(TRAIN_SECONDS))
    if seconds is not None:
        return seconds
    curves = system.get(CURVES)
    epochs = curves.get(EPOCH_SECONDS) if isinstance(curves, Mapping) else None
    timed = [number(value) for value in epochs] if isinstance(epochs, list) else []
    return sum(value for value in timed if value is not None) if timed else None
