"""How long a call waits for a storage that says nothing, by the clock of this process.

A frozen server keeps no time limit, its kernel goes on to acknowledge what it is sent, and a
pooler may refuse the settings that would ask for one. So whoever waits looks at its own clock.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

logger = logging.getLogger(__name__)

#: Seconds of silence after which a call that is made again later counts as failed.
ANSWER_S = 10.0

#: The same for a call that is made only once, by a command of a person.
ONLY_CALL_S = 30.0

#: Seconds of silence after which a person is told what takes so long.
WORD_AFTER_S = 2.0

#: Seconds that a call is given at least, also where there is no time left.
_LEAST_S = 1.0


class Deadline:
    """The end of the wait of one call: so many seconds in which nothing is heard.

    Args:
        silence_s: So many.
        must_end: Asked while nothing is heard; true ends the call, if it had a second.
        announces: The silence is said once, before its end.
    """

    def __init__(
        self,
        silence_s: float,
        must_end: Callable[[], bool] = lambda: False,
        *,
        announces: bool = False,
    ) -> None:
        self.silence_s = silence_s
        self._must_end = must_end
        self._announces = announces
        self._heard_at = time.monotonic()
        self._has_passed = False

    def listen(self) -> None:
        """Start the clock anew: something was asked, or was heard."""
        self._heard_at = time.monotonic()

    def has_passed(self) -> bool:
        """Tell whether the wait is over; once it is, it is over for the whole call."""
        silent_s = time.monotonic() - self._heard_at
        is_over = silent_s > self.silence_s or (silent_s > _LEAST_S and self._must_end())
        self._has_passed = self._has_passed or is_over
        if self._announces and silent_s > WORD_AFTER_S and not self._has_passed:
            self._announces = False
            logger.warning(
                "the storage does not answer, or another process holds its lock: waiting for "
                "at most %.0f s",
                self.silence_s,
            )
        return self._has_passed


_of_this_call: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def deadline() -> Deadline:
    """Return the deadline of the call that is being made; of none, one for a single wait."""
    return _of_this_call.get() or Deadline(ONLY_CALL_S, announces=True)


@contextlib.contextmanager
def within(limit: Deadline) -> Iterator[None]:
    """Make a call that ends with a deadline, however many statements it consists of."""
    token = _of_this_call.set(limit)
    try:
        yield
    finally:
        _of_this_call.reset(token)
