"""Who looks at a training while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skdtune.describe.epoch_report import EpochReport


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """What is known of a training before its first step."""

    name: str
    folder: Path
    seed: int
    epochs: int
    """Epochs that are planned."""

    num_train: int
    num_val: int | None
    """None where it learns from these images, too."""

    computes: str
    """Where and how it computes, for people."""


class Watcher:
    """Is told of a training; this one shows nothing of it."""

    def begins(self, start: RunStart, so_far: Sequence[EpochReport]) -> None:
        """Take note of a training.

        Args:
            start: What is trained.
            so_far: Epochs that it has behind it.
        """

    def step(self, progress: float) -> None:
        """Take note of a step.

        Args:
            progress: Share of the epoch's steps that are done, 0 to 1.
        """

    def epoch(self, report: EpochReport) -> None:
        """Take note of a finished epoch, which is written down by now."""

    def say(self, message: str) -> None:
        """Tell a person something that the training outlives."""

    def ends(self) -> None:
        """Stop showing anything."""
