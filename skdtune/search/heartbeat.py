"""A thread that keeps a lease alive while its trial trains."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from types import TracebackType

import sqlalchemy as sa

from skdtune.search.leases import LEASE_S, renew

logger = logging.getLogger(__name__)

#: Process id of the supervisor that started this worker: when it is gone, the worker gives its
#: trial back and leaves.
SUPERVISED_VARIABLE = "SKDTUNE_SUPERVISED"


def is_orphaned() -> bool:
    """Tell whether this process was started by a supervisor that is gone."""
    supervisor = os.environ.get(SUPERVISED_VARIABLE)
    return bool(supervisor) and str(os.getppid()) != supervisor


class Heartbeat:
    """Renews one lease until it is left; a context manager around one trial.

    A renewal that fails (a restarted database, a broken connection) is tried again at the next
    beat; several beats fit into one lease.

    Args:
        engine: The storage's engine.
        trial_id: The trial in hand.
        token: The owner's token.
        on_orphaned: Called at every beat after the supervisor has died.
        lease_s: Seconds after which a silent lease may be reaped.
    """

    def __init__(
        self,
        engine: sa.Engine,
        trial_id: int,
        token: str,
        on_orphaned: Callable[[], None],
        lease_s: float = LEASE_S,
    ) -> None:
        self._engine = engine
        self._trial_id = trial_id
        self._token = token
        self._on_orphaned = on_orphaned
        self._interval_s = lease_s / 6
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
        self._thread.join(timeout=self._interval_s + 5)

    def beat(self) -> bool:
        """Renew now; False if the lease is lost."""
        if not self.lost and not renew(self._engine, self._trial_id, self._token):
            self._lost.set()
        return not self.lost

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s) and not self.lost:
            if is_orphaned():
                self._on_orphaned()
            try:
                self.beat()
            except sa.exc.SQLAlchemyError as error:
                logger.warning("heartbeat failed, trying again: %s", type(error).__name__)
