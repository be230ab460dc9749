"""A thread that keeps a lease alive while its trial trains, and reaps those that fell silent."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

import sqlalchemy as sa

from skdtune.errors import StorageAwayError
from skdtune.queue.leases import LEASE_S, Claim, ping, reap, renew
from skdtune.queue.patience import Patience

logger = logging.getLogger(__name__)

#: Process id of the supervisor that started this worker: when it is gone, the worker gives its
#: trial back and leaves.
SUPERVISED_VARIABLE = "SKDTUNE_SUPERVISED"


def is_orphaned() -> bool:
    """Tell whether this process was started by a supervisor that is gone."""
    supervisor = os.environ.get(SUPERVISED_VARIABLE)
    return bool(supervisor) and str(os.getppid()) != supervisor


def reap_silent(
    engine: sa.Engine, study_id: int, patience: Patience, lease_s: float, by: str = ""
) -> list[int]:
    """Give trials back whose workers fell silent, and say so.

    After an outage every worker needs a moment to be heard again: for as long as a lease, nobody
    is taken for dead.

    Raises:
        StorageAwayError: If the storage does not answer.
    """
    if patience.answers_for_s < lease_s:
        # A real question, so that the moment begins when the storage is there and not before.
        patience.once(lambda: ping(engine))
        return []
    numbers = patience.once(lambda: reap(engine, study_id, by))
    for number in numbers:
        logger.warning("trial %d waits again: its worker fell silent", number)
    return numbers


class Heartbeat:
    """Renews one lease until it is left; a context manager around one trial.

    A renewal that fails (a restarted database, a broken connection) is tried again at the next
    beat; several beats fit into one lease. The thread also reaps, so that a trial does not wait
    for the end of another one to be given back.

    Args:
        engine: The storage's engine.
        claimed: The trial in hand.
        on_orphaned: Called at every beat after the supervisor has died.
        patience: Makes the calls to the storage.
        lease_s: Seconds after which a silent lease may be reaped.
    """

    def __init__(
        self,
        engine: sa.Engine,
        claimed: Claim,
        on_orphaned: Callable[[], None],
        patience: Patience,
        lease_s: float = LEASE_S,
    ) -> None:
        self._engine = engine
        self._claim = claimed
        self._on_orphaned = on_orphaned
        self._patience = patience
        self._lease_s = lease_s
        self._interval_s = lease_s / 6
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
            if self._patience.once(lambda: renew(self._engine, self._claim)):
                self._renewed_at = time.monotonic()
            else:
                self._lost.set()
        return not self.lost

    def holds(self) -> bool:
        """Tell whether the trial may still be ours; asks the storage after a long silence.

        A process that was frozen for longer than a lease must not believe what it knew before.
        While the storage is away nobody else can have taken the trial.
        """
        if self.lost or time.monotonic() - self._renewed_at < self._lease_s:
            return not self.lost
        if not self._patience.is_due:
            return True
        try:
            return self.beat()
        except StorageAwayError:
            return True

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s) and not self.lost:
            if is_orphaned():
                self._on_orphaned()
            try:
                self.beat()
                self._reap_now_and_then()
            except StorageAwayError:
                continue
            except Exception:
                logger.warning("the heartbeat failed, trying again", exc_info=True)

    def _reap_now_and_then(self) -> None:
        if time.monotonic() - self._reaped_at >= self._lease_s / 2:
            self._reaped_at = time.monotonic()
            reap_silent(
                self._engine,
                self._claim.study_id,
                self._patience,
                self._lease_s,
                str(self._claim.worker),
            )
