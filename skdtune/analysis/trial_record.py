"""One trial as everybody looks at it: read once, and checked where others may have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from skdtune.describe.kinds.kind import Kind
from skdtune.queue import trial_attributes as attributes
from skdtune.queue.checked_values import count, number, text, whole
from skdtune.queue.trial_attributes import FinalScores, Profile

#: Optuna's states, as people are told of them.
STATE_NAMES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial; whatever the storage holds that is no finite number is left out."""

    number: int
    state: str
    """waiting, running, complete, pruned or failed."""

    value: float | None = None
    """Objective of a complete trial; the last epoch's value of any other."""

    value_name: str = ""
    """What the value is: validation accuracy, test accuracy or training loss."""

    params: Mapping[str, Any]
    curve: tuple[tuple[int, float], ...] = ()
    """Epochs, counted from 1, with what was reported after each."""

    ended_at: float | None = None
    """Seconds since 1970 at which it ended."""

    seconds: float | None = None
    """Wall-clock time from claim to end."""

    train_seconds: float | None = None
    """Time of its epochs, as it was summed up when it ended."""

    device_seconds: float | None = None
    """Time of its epochs; where no epoch was timed, the time that it was in hand."""

    images: int | None = None
    """Images trained on, all views counted."""

    peak_memory_mb: float | None = None
    device: str | None = None
    precision: str | None = None
    kernels: str | None = None
    """Which form of the layers computed."""

    seed: int | None = None
    num_val_images: int | None = None
    """Images that it was judged on."""

    data_fingerprint: str | None = None
    """Identifies the images that it learned from."""

    source: str | None = None
    """Identifies what they come from, before they are decoded and divided."""

    versions: Mapping[str, str] = field(default_factory=dict)
    profile: Profile | None = None
    test: FinalScores | None = None
    """What it scored on the test images; None unless all of it is there."""

    failure_kind: str | None = None
    failure_reason: str | None = None
    foreign: str = ""
    """Why it counts nowhere; empty for what skdtune's workers made."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """Where and with what it ran, as text for people, by the name of the attribute."""

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return self.curve[-1][0] if self.curve else 0

    @property
    def is_over(self) -> bool:
        """Nobody will train it further."""
        return self.state in ("complete", "pruned", "failed")

    def to_dict(self) -> dict[str, Any]:
        """Return what commands print as JSON, and ``skdtune.results`` hands out."""
        plain = {
            "number": self.number,
            "state": self.state,
            "value": self.value,
            "value_name": self.value_name,
            "params": dict(self.params),
            "epochs": self.epochs,
            "seconds": self.seconds,
            "device": self.device,
            "seed": self.seed,
            "failure_kind": self.failure_kind,
            "failure_reason": self.failure_reason,
        }
        # Only where it is, so that all others are written as they were before there were any.
        return {**plain, "foreign": self.foreign} if self.foreign else plain


#: User attributes that say where and with what a trial ran.
_FACTS = (
    attributes.DEVICE,
    attributes.PRECISION,
    attributes.KERNELS,
    attributes.THREADS,
    attributes.VERSIONS,
    attributes.DATA_FINGERPRINT,
    attributes.SOURCE,
    attributes.NUM_VAL_IMAGES,
    attributes.NUM_TEST_IMAGES,
    attributes.SPEC_HASH,
)


def read_trial(trial: FrozenTrial, kind: Kind, foreign: str = "") -> TrialRecord:
    """Read a trial as Optuna hands it out.

    Args:
        trial: The trial.
        kind: Kind of its study.
        foreign: Why it is foreign, if it is.
    """
    user, system = trial.user_attrs, trial.system_attrs
    steps = trial.intermediate_values
    is_complete = trial.state is TrialState.COMPLETE
    in_hand_s = trial.duration.total_seconds() if trial.duration is not None else None
    epochs_s = attributes.read_epochs_seconds(user, system)
    versions = user.get(attributes.VERSIONS)
    return TrialRecord(
        number=trial.number,
        state=STATE_NAMES[trial.state],
        value=number(_objective(trial) if is_complete else steps[max(steps)] if steps else None),
        value_name=kind.metric_name if is_complete else kind.step_name,
        params=kind.params_of(trial.number, trial.params),
        curve=tuple(
            (step + 1, reported)
            for step, reported in sorted(steps.items())
            if step >= 0 and number(reported) is not None
        ),
        ended_at=_ended_at(trial),
        seconds=in_hand_s,
        train_seconds=number(user.get(attributes.TRAIN_SECONDS)),
        device_seconds=in_hand_s if epochs_s is None else epochs_s,
        images=whole(user.get(attributes.IMAGES)),
        peak_memory_mb=number(user.get(attributes.PEAK_MEMORY_MB)),
        device=text(user.get(attributes.DEVICE)),
        precision=text(user.get(attributes.PRECISION)),
        kernels=text(user.get(attributes.KERNELS)),
        seed=whole(user.get(attributes.SEED)),
        num_val_images=count(user.get(attributes.NUM_VAL_IMAGES)),
        data_fingerprint=text(user.get(attributes.DATA_FINGERPRINT)),
        source=text(user.get(attributes.SOURCE)),
        versions={str(name): str(one) for name, one in versions.items()}
        if isinstance(versions, Mapping)
        else {},
        profile=attributes.read_profile(system.get(attributes.PROFILE)),
        test=attributes.read_test(user),
        failure_kind=text(user.get(attributes.FAILURE_KIND)),
        failure_reason=text(user.get(attributes.FAILURE_REASON)),
        foreign=foreign,
        facts={key: fact for key in _FACTS if (fact := _fact(user.get(key)))},
    )


def _objective(trial: FrozenTrial) -> float | None:
    """Return the first value: a study has one, but rows of others may have several."""
    return trial.values[0] if trial.values else None


def _ended_at(trial: FrozenTrial) -> float | None:
    try:
        return trial.datetime_complete.timestamp() if trial.datetime_complete else None
    except (ValueError, OverflowError):
        # A date that somebody wrote, from before there were any.
        return None


def _fact(value: Any) -> str:
    """Write an attribute for people: versions as a list of names and numbers."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {what}" for key, what in value.items())
    return "" if value is None else str(value)
