"""A thread that looks at the clock while a trial trains: time limits, and trainings that hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from skdtune.describe.epoch_report import EpochReport
from skdtune.worker.hooks.hook import Hook, TrialInHand

#: Seconds that a training which ran out of time has to notice it, between two steps.
HANG_S = 30.0


class TimeLimits(Hook):
    """Watches the time of a trial and of each of its epochs, from a thread called watchdog.

    A training that is merely slow notices between two steps that its time has expired, and
    leaves. One that hangs, in a kernel or a driver, never does: the attempt is then settled from
    the watching thread.

    Args:
        attempt: The trial in hand; its study's faults are the limits.
        hang_s: Seconds between the end of its time and that.
    """

    def __init__(self, attempt: TrialInHand, hang_s: float | None = None) -> None:
        self._attempt = attempt
        self._faults = attempt.place.stored.spec.faults
        self._hang_s = HANG_S if hang_s is None else hang_s
        self._spent_s = 0.0
        self._epoch_started_at: float | None = None
        self._is_settling = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self._interval_s is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.epoch_ends()
        self._stop.set()
        # One that settles the trial is not waited for here.
        if self._thread.is_alive() and not self._is_settling and kind is not KeyboardInterrupt:
            self._thread.join(timeout=5)

    def epoch_starts(self, epochs: Sequence[EpochReport]) -> None:
        """Start the clock of an epoch; those of earlier attempts count for the trial, too."""
        self._spent_s = sum(report.seconds for report in epochs)
        self._epoch_started_at = time.monotonic()

    def epoch_ends(self) -> None:
        """Stop the clock: what follows is no training, and may wait for the storage."""
        self._epoch_started_at = None

    @property
    def _interval_s(self) -> float | None:
        limits = (self._faults.max_trial_seconds, self._faults.max_epoch_seconds)
        known = [limit for limit in limits if limit is not None]
        return min(1.0, min(known) / 10) if known else None

    def _run(self) -> None:
        interval_s = self._interval_s or 1.0
        expired: str | None = None
        while not self._stop.wait(interval_s):
            if expired is None:
                expired, expired_at = self._find_excess(), time.monotonic()
                if expired is not None:
                    self._attempt.expire(expired)
            elif self._epoch_started_at is None:
                # It has left the epoch by itself.
                return
            elif time.monotonic() - expired_at > self._hang_s:
                self._is_settling = True
                self._attempt.settle_hanging(f"{expired}, and the training did not react")
                return

    def _find_excess(self) -> str | None:
        # Read once: the training's own thread may end the epoch in between.
        started_at, faults = self._epoch_started_at, self._faults
        if started_at is None:
            return None
        epoch_s = time.monotonic() - started_at
        if faults.max_epoch_seconds is not None and epoch_s > faults.max_epoch_seconds:
            return f"an epoch took longer than max_epoch_seconds={faults.max_epoch_seconds:g}"
        trial_s = self._spent_s + epoch_s
        if faults.max_trial_seconds is not None and trial_s > faults.max_trial_seconds:
            return f"the trial took longer than max_trial_seconds={faults.max_trial_seconds:g}"
        return None
