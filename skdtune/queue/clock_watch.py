"""Tells time that passed from a database clock that was set ahead."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger(__name__)

#: Differences below it are those of slow answers; they matter to leases that only tests have.
_LEAST_JUMP_S = 1.0


class ClockWatch:
    """Compares the database's clock with this process's own, from one look to the next.

    By a clock that was set ahead everybody has been silent for long, and whoever looks first would
    take all trials from workers that are alive. The same is seen by a machine that slept, whose own
    clock stood still. Who is alive is heard again within a lease.

    Args:
        lease_s: Seconds of silence that make a worker count as dead.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        # The database's clock and this process's own, at the last look.
        self._seen: tuple[float, float] | None = None
        self._set_ahead_at = float("-inf")

    def trusts_silence(self, clock_s: float) -> bool:
        """Tell whether a silence by the database's clock is one; not for a lease after a jump.

        Args:
            clock_s: The database's clock, as just read.
        """
        own_s = time.monotonic()
        if self._seen is not None:
            ahead_s = (clock_s - self._seen[0]) - (own_s - self._seen[1])
            if ahead_s > max(self._lease_s / 2, _LEAST_JUMP_S):
                self._set_ahead_at = own_s
                logger.warning(
                    "the database's clock went %.0f s ahead at once: nobody is taken for dead "
                    "in the next %.0f s",
                    ahead_s,
                    self._lease_s,
                )
        self._seen = (clock_s, own_s)
        return own_s - self._set_ahead_at >= self._lease_s
