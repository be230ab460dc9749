"""Calls to a storage that may be away for a while: tried again, with backoff, for long enough."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

import optuna
import sqlalchemy as sa

from skdtune.errors import StorageAwayError
from skdtune.queue.deadline import ANSWER_S, Deadline, within

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Seconds that a storage may be away before a worker gives up; far longer than a lease.
OUTAGE_S = 1800.0

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0

#: Errors of these classes are the connection's, the server's or its disk's, not the statement's.
_OUTAGES = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.TimeoutError,
    # A second statement in a transaction whose connection broke under the first.
    sa.exc.PendingRollbackError,
)
#: PostgreSQL while another server takes over: read-only, starting up, shutting down.
_PASSING_STATES = ("25006", "57P01", "57P02", "57P03")
#: SQLite says the same class for mistakes that no waiting mends.
_PERMANENT = ("no such table", "no such column", "syntax error")


def is_outage(error: BaseException) -> bool:
    """Tell whether waiting may help: the storage does not answer, is restarting, or is locked."""
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
        return True
    if getattr(getattr(error, "orig", None), "sqlstate", None) in _PASSING_STATES:
        return True
    lasting = any(text in str(getattr(error, "orig", "")) for text in _PERMANENT)
    return isinstance(error, _OUTAGES) and not lasting


class Patience:
    """Makes calls to a storage, again and again while it is away.

    Only calls that may be made twice: the answer of one that was carried out can get lost.

    Args:
        outage_s: Seconds of outage after which it gives up.
        must_leave: Asked between two tries; true gives up at once.
        sleep: Waits between two tries.
        answer_s: Seconds of silence in the middle of a call after which the storage is away.
        must_end: Asked while nothing is heard in the middle of a call; true ends it.
    """

    def __init__(
        self,
        outage_s: float = OUTAGE_S,
        must_leave: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], object] = time.sleep,
        *,
        answer_s: float = ANSWER_S,
        must_end: Callable[[], bool] = lambda: False,
    ) -> None:
        self._outage_s = outage_s
        self._must_leave = must_leave
        self._sleep = sleep
        self._answer_s = answer_s
        self._must_end = must_end
        self._away_since: float | None = None
        self._answered_since = float("-inf")

    @property
    def is_away(self) -> bool:
        """The storage did not answer when it was last asked."""
        return self._away_since is not None

    @property
    def away_s(self) -> float:
        """Seconds since the storage stopped answering; 0 while it answers."""
        # Read once: the heartbeat's thread may hear an answer in between.
        since = self._away_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def answers_for_s(self) -> float:
        """Seconds since the last outage ended; infinite if there was none."""
        if self._away_since is not None:
            return 0.0
        return time.monotonic() - self._answered_since

    def __call__(self, call: Callable[[], Result]) -> Result:
        """Make a call until it succeeds.

        Raises:
            StorageAwayError: If the storage stayed away for too long, or this worker must leave.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self.once(call)
            except StorageAwayError:
                if self.away_s >= self._outage_s or self._must_leave():
                    raise
            # Jitter, so that the workers of a cluster do not all come back at one moment.
            self._sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def once(self, call: Callable[[], Result]) -> Result:
        """Make a call once.

        Raises:
            StorageAwayError: If the storage does not answer.
        """
        try:
            with within(Deadline(self._answer_s, self._must_end)):
                result = call()
        except Exception as error:
            if not is_outage(error):
                raise
            if self._away_since is None:
                self._away_since = time.monotonic()
                logger.warning(
                    "the storage does not answer, trying again for %.0f s: %s",
                    self._outage_s,
                    _one_line(error),
                )
            raise StorageAwayError(
                f"the storage has not answered for {self.away_s:.0f} s: {_one_line(error)}"
            ) from None
        if self._away_since is not None:
            logger.warning("the storage answers again, after %.0f s", self.away_s)
            self._answered_since = time.monotonic()
            self._away_since = None
        return result


def _one_line(error: BaseException) -> str:
    """Name an error without its text, which may hold a password."""
    if error.__cause__ is not None and isinstance(error, optuna.exceptions.StorageInternalError):
        error = error.__cause__
    cause = getattr(error, "orig", None) or error
    return type(cause).__name__
