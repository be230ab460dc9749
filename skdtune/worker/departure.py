"""When a worker leaves the trial in hand: at once, or at the end of the epoch if that is near."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from skdtune.describe.epoch_report import EpochReport
from skdtune.signals import StopRequest
from skdtune.worker.heartbeat import Heartbeat

#: Seconds after a signal in which an epoch may still be finished. Slurm and Kubernetes wait 30 s
#: before they kill; the checkpoint has to be written within them too.
GRACE_S = 20.0

#: Share of the expected time that an epoch may take longer than expected.
_MARGIN = 1.2


class Departure:
    """Weighs a signal, a lost lease and an expired time against the epoch in hand.

    Args:
        stop: What the signals asked for.
        heartbeat: Knows whether the trial still is this worker's.
        grace_s: Seconds after a signal in which the epoch may still be finished.
    """

    def __init__(self, stop: StopRequest, heartbeat: Heartbeat, grace_s: float = GRACE_S) -> None:
        self._stop = stop
        self._heartbeat = heartbeat
        self._grace_s = grace_s
        self._expired: str | None = None
        self._usual_epoch_s: float | None = None
        self._epoch_started_at: float | None = None

    @property
    def expired(self) -> str | None:
        """Why the training must end now, None while it may go on."""
        return self._expired

    def expire(self, reason: str) -> None:
        """Let the training end as soon as it notices, between two steps."""
        self._expired = reason

    @property
    def is_asked_for(self) -> bool:
        """The trial must be left at the end of the epoch, at the latest."""
        return self._stop.interrupted or self._heartbeat.lost or bool(self._expired)

    def epoch_started(self, epochs: Sequence[EpochReport]) -> None:
        """Take note of the epochs so far, at the start of the next one."""
        self._epoch_started_at = time.monotonic()
        if epochs:
            self._usual_epoch_s = statistics.median(report.seconds for report in epochs)

    def is_due(self, progress: float) -> bool:
        """Tell, between two steps, whether the trial must be left now.

        Args:
            progress: Share of the epoch's steps that are done.
        """
        if self._heartbeat.lost or self._expired:
            return True
        if not self._stop.interrupted:
            return False
        return self._stop.interrupted_for_s + self._left_s(progress) > self._grace_s

    def _left_s(self, progress: float) -> float:
        """Estimate how long the epoch will still take, its validation included."""
        started_at = self._epoch_started_at
        elapsed_s = 0.0 if started_at is None else time.monotonic() - started_at
        if self._usual_epoch_s is not None and elapsed_s < self._usual_epoch_s:
            return _MARGIN * (self._usual_epoch_s - elapsed_s)
        if progress <= 0:
            return float("inf")
        return _MARGIN * elapsed_s * (1 - progress) / progress
