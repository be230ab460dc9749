"""A thread that keeps a lease alive while its trial trains, and reaps those that fell silent."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from skdtune.errors import StorageAwayError, StorageLostError
from skdtune.queue.leases import Claim
from skdtune.queue.trial_queue import TrialQueue
from skdtune.signals import is_orphaned

logger = logging.getLogger(__name__)

#: Seconds between two beats while the storage is away: nobody else looks whether it is back.
_PROBE_S = 2.5


class Heartbeat:
    """Renews one lease until it is left; a context manager around one trial.

    A renewal that fails (a restarted database, a broken connection) is tried again at the next
    beat; several beats fit into one lease. While the storage is away it is this thread that asks
    for it, and the training does not wait. The thread also reaps, so that a trial does not wait
    for the end of another one to be given back.

    Args:
        queue: The queue that the trial was claimed from.
        claim: The trial in hand.
        on_orphaned: Called at every beat after the supervisor has died.
        reap: Gives back what silent workers hold; default the trials of this study.
    """

    def __init__(
        self,
        queue: TrialQueue,
        claim: Claim,
        on_orphaned: Callable[[], None],
        reap: Callable[[], object] | None = None,
    ) -> None:
        self._queue = queue
        self._claim = claim
        self._on_orphaned = on_orphaned
        self._reap = reap or (lambda: queue.reap_silent(str(claim.worker)))
        self._interval_s = queue.lease_s / 6
        self._renewed_at = time.monotonic()
        self._reaped_at = time.monotonic()
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def lost(self) -> bool:
        """The lease belongs to somebody else by now."""
        return self._lost.is_set()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        # A second Ctrl-C waits for nobody.
        if kind is not KeyboardInterrupt:
            self._thread.join(timeout=self._interval_s + 5)

    def beat(self) -> bool:
        """Renew now; False if the lease is lost.

        Raises:
            StorageAwayError: If the storage does not answer.
        """
        if not self.lost:
            if self._queue.once.renew(self._claim):
                self._renewed_at = time.monotonic()
            else:
                self._lost.set()
        return not self.lost

    def holds(self) -> bool:
        """Tell whether the trial may still be ours; asks the storage after a long silence.

        A process that was frozen for longer than a lease must not believe what it knew before.
        While the storage is away nobody else can have taken the trial.
        """
        if self.lost or time.monotonic() - self._renewed_at < self._queue.lease_s:
            return not self.lost
        if self._queue.patience.is_away:
            return True
        try:
            return self.beat()
        except StorageAwayError:
            return True

    @property
    def _pause_s(self) -> float:
        is_away = self._queue.patience.is_away
        return min(self._interval_s, _PROBE_S) if is_away else self._interval_s

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s) and not self.lost:
            if is_orphaned():
                self._on_orphaned()
            try:
                self.beat()
                if time.monotonic() - self._reaped_at >= self._queue.lease_s / 2:
                    self._reaped_at = time.monotonic()
                    self._reap()
            except StorageAwayError:
                continue
            except StorageLostError as error:
                # The training hears of it when it stores its epoch, after its checkpoint.
                logger.error("%s", error)
                return
            except Exception:
                logger.warning("the heartbeat failed, trying again", exc_info=True)
