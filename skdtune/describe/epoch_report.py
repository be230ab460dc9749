"""What a trainer tells the outside world after each epoch, and the verdict it gets back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One finished epoch of one trial."""

    epoch: int
    """Index of the epoch, from 0."""

    val_accuracy: float | None = None
    """Share of the validation images classified right, 0 to 1; None without such images."""

    val_loss: float | None = None
    """Mean cross-entropy on the validation images; None without such images."""

    losses: dict[str, float] = field(default_factory=dict)
    """Mean of every named, weighted training loss over the epoch."""

    lr: float
    """Learning rate of the epoch's last step."""

    seconds: float
    """Wall-clock time of the epoch, validation included."""

    images: int = 0
    """Images trained on in the epoch; every augmented view of an image counts."""

    scores: dict[str, float] | None = None
    """Top-5 accuracy, calibration error and likelihood on the validation images, after the last
    epoch."""

    profile: list[float] | None = None
    """Mean sorted probabilities on the validation images, largest first, after the first and the
    last epoch."""

    @property
    def value(self) -> float:
        """What is stored of the epoch: the validation accuracy, else the mean training loss."""
        if self.val_accuracy is None:
            return sum(self.losses.values())
        return self.val_accuracy


class Verdict(Enum):
    """What the trainer does next."""

    CONTINUE = "continue"
    PRUNE = "prune"
    INTERRUPT = "interrupt"


class Reporter(Protocol):
    """Receives a trainer's progress; knows what a trial is, so that the trainer need not."""

    def epoch_finished(self, report: EpochReport) -> Verdict:
        """Take note of an epoch and say how to go on."""

    def interrupted(self, progress: float) -> bool:
        """Tell, before a step, whether the training must be left at once.

        Args:
            progress: Share of the epoch's steps that are done, 0 to 1.
        """


class NullReporter:
    """Takes note of nothing and lets the training run to its end."""

    def epoch_finished(self, report: EpochReport) -> Verdict:
        """Go on."""
        return Verdict.CONTINUE

    def interrupted(self, progress: float) -> bool:
        """Never."""
        return False
