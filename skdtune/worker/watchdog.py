"""A thread that looks at the clock while a trial trains: time limits, and trainings that hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from skdtune.describe.faults import FaultsConfig

#: Seconds that a training which ran out of time has to notice it, between two steps.
HANG_S = 30.0


class Settlement:
    """Lets one of two threads, and only one, settle how a trial ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = threading.Event()

    def take(self) -> bool:
        """Tell whether it is the caller who settles it: the first one."""
        return self._lock.acquire(blocking=False)

    def finish(self) -> None:
        """Tell the other thread that it is settled."""
        self._done.set()

    def wait(self) -> None:
        """Wait until the other thread has settled it."""
        while not self._done.wait(1.0):
            pass


class Watchdog:
    """Watches the time of one trial and of each of its epochs; a context manager around it.

    A training that is merely slow notices between two steps that it :attr:`expired` and leaves.
    One that hangs, in a kernel or a driver, never does: ``on_hang`` is then called from the
    watchdog's own thread.

    Args:
        faults: The limits.
        on_hang: Called with the reason when the training does not leave.
        hang_s: Seconds between the end of its time and that call.
    """

    def __init__(
        self, faults: FaultsConfig, on_hang: Callable[[str], None], hang_s: float = HANG_S
    ) -> None:
        self._faults = faults
        self._on_hang = on_hang
        self._hang_s = hang_s
        self._spent_s = 0.0
        self._epoch_started_at: float | None = None
        self._expired: str | None = None
        self._is_settling = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    @property
    def expired(self) -> str | None:
        """Why the training must end now, None while it may go on."""
        return self._expired

    def __enter__(self) -> Watchdog:
        if self._interval_s is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        # One that settles the trial is not waited for here.
        if self._thread.is_alive() and not self._is_settling and kind is not KeyboardInterrupt:
            self._thread.join(timeout=5)

    def epoch_started(self, spent_s: float) -> None:
        """Start the clock of an epoch.

        Args:
            spent_s: Seconds that the trial's epochs took so far, in all attempts.
        """
        self._spent_s = spent_s
        self._epoch_started_at = time.monotonic()

    def epoch_ended(self) -> None:
        """Stop the clock: what follows is no training, and may wait for the storage."""
        self._epoch_started_at = None

    @property
    def epoch_s(self) -> float:
        """Seconds since the epoch started; 0 between two epochs."""
        started_at = self._epoch_started_at
        return 0.0 if started_at is None else time.monotonic() - started_at

    @property
    def _interval_s(self) -> float | None:
        limits = (self._faults.max_trial_seconds, self._faults.max_epoch_seconds)
        known = [limit for limit in limits if limit is not None]
        return min(1.0, min(known) / 10) if known else None

    def _run(self) -> None:
        interval_s = self._interval_s or 1.0
        while not self._stop.wait(interval_s):
            if self._expired is None:
                self._expired = self._find_excess()
                expired_at = time.monotonic()
            elif self._epoch_started_at is None:
                # It has left the epoch by itself.
                return
            elif time.monotonic() - expired_at > self._hang_s:
                self._is_settling = True
                self._on_hang(f"{self._expired}, and the training did not react")
                return

    def _find_excess(self) -> str | None:
        if self._epoch_started_at is None:
            return None
        epoch_s, faults = self.epoch_s, self._faults
        if faults.max_epoch_seconds is not None and epoch_s > faults.max_epoch_seconds:
            return f"an epoch took longer than max_epoch_seconds={faults.max_epoch_seconds:g}"
        trial_s = self._spent_s + epoch_s
        if faults.max_trial_seconds is not None and trial_s > faults.max_trial_seconds:
            return f"the trial took longer than max_trial_seconds={faults.max_trial_seconds:g}"
        return None
