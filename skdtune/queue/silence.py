"""Tells the silence of a worker that died from one that is not its own."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

logger = logging.getLogger(__name__)

#: What is shorter is a slow answer; it matters to leases that only tests have.
_LEAST_GAP_S = 1.0


class SilenceWatch:
    """Notices, for a process that looks again and again, what made everybody look silent.

    A database clock that was set ahead does, and so does the sleep of this machine, whose own
    clock stood still meanwhile. A frozen database does too: it accepts calls and answers none.
    Whoever looked first then would take all trials from workers that are alive. Who is alive is
    heard again within a lease.

    Args:
        lease_s: Seconds of silence that make a worker count as dead.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._gap_s = max(lease_s / 2, _LEAST_GAP_S)
        # The database's clock and this process's own, at the last look.
        self._seen: tuple[float, float] | None = None
        self._doubtful_since = float("-inf")

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Watch a call to the database: others may have waited as long as this one does."""
        asked_at = time.monotonic()
        try:
            yield
        finally:
            if time.monotonic() - asked_at > self._gap_s:
                self._doubtful_since = time.monotonic()

    def is_telling(self, clock_s: float) -> bool:
        """Tell whether who is silent for a lease is dead.

        Args:
            clock_s: The database's clock, as just read.
        """
        own_s = time.monotonic()
        if self._seen is not None:
            ahead_s = (clock_s - self._seen[0]) - (own_s - self._seen[1])
            if ahead_s > self._gap_s:
                self._doubtful_since = own_s
                logger.warning(
                    "the database's clock went %.0f s ahead at once: nobody is taken for dead "
                    "in the next %.0f s",
                    ahead_s,
                    self._lease_s,
                )
        self._seen = (clock_s, own_s)
        return own_s - self._doubtful_since >= self._lease_s
