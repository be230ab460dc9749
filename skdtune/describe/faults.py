"""What a study does about trials that fail: retries by kind, time limits, when to pause."""

from __future__ import annotations

from pydantic import Field

from skdtune.describe.settings import Frozen


class RetriesConfig(Frozen):
    """How often one trial may go on after a failure of a kind; null is without limit."""

    of_first_release = True

    preempted: int | None = Field(default=None, ge=0)
    """Its worker was asked to leave."""

    lost: int | None = Field(default=5, ge=0)
    """Its worker died or fell silent, without an epoch of progress since the last time."""

    oom: int | None = Field(default=0, ge=0)
    """The memory of the device or of the host ran out."""

    timeout: int | None = Field(default=0, ge=0)
    """It exceeded a time limit."""

    error: int | None = Field(default=0, ge=0)
    """It raised any other error. A loss that is NaN would be NaN again: there is no such retry."""


class FaultsConfig(Frozen):
    """Policies for failures; where a kind has no retry left, the trial is failed for good."""

    of_first_release = True

    retries: RetriesConfig = RetriesConfig()
    """Retries by kind; a retried trial goes on from its last checkpoint."""

    max_trial_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Training time of a trial, interruptions not counted; null is without limit."""

    max_epoch_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Time of one epoch; catches a training that hangs. Null is without limit."""

    pause_after_equal_errors: int | None = Field(default=3, ge=1)
    """Trials in a row that fail with the same error before the study pauses; null is never."""

    def retries_of(self, kind: str) -> int | None:
        """Return the retries of a kind of failure; null is without limit."""
        retries: int | None = getattr(self.retries, kind, 0)
        return retries
