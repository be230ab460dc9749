"""The first signal asks a worker to stop, the second one ends it at once.

============  =====================================================  =========
signal        meaning                                                exit code
============  =====================================================  =========
SIGINT        finish the epoch if its end is near, else leave it     130
              now; give the trial back to the queue
SIGTERM       the same, as a scheduler or a supervisor asks for it   0
SIGUSR1       finish the trial in hand, take no other                0
SIGCONT       nothing: some schedulers send it ahead of SIGTERM      -
============  =====================================================  =========
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

INTERRUPTED_EXIT_CODE = 130

#: Process id of the supervisor that started this process: when it is gone, a worker gives its
#: trial back and leaves.
SUPERVISED_VARIABLE = "SKDTUNE_SUPERVISED"

_SLICE_S = 0.1


def is_orphaned() -> bool:
    """Tell whether this process was started by a supervisor that is gone."""
    supervisor = os.environ.get(SUPERVISED_VARIABLE)
    return bool(supervisor) and str(os.getppid()) != supervisor


class StopRequest:
    """What the signals asked for so far; used as a context manager around a worker's life.

    Outside of the main thread no handler can be installed: the request then never comes from a
    signal, and :meth:`interrupt` and :meth:`drain` remain.
    """

    def __init__(self) -> None:
        # Plain values: a handler that needs a lock could wait for the code that it interrupted.
        self._interrupted = False
        self._draining = False
        self._interrupted_at = 0.0
        self._by_keyboard = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._install(signal.SIGINT, self._on_interrupt)
            self._install(signal.SIGTERM, self._on_interrupt)
            self._install(signal.SIGUSR1, self._on_drain)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def interrupt(self) -> None:
        """Ask to leave the trial now."""
        if not self._interrupted:
            self._interrupted_at = time.monotonic()
        self._interrupted = True

    def drain(self) -> None:
        """Ask to take no other trial."""
        self._draining = True

    @property
    def interrupted(self) -> bool:
        """The trial must be left now."""
        return self._interrupted

    @property
    def interrupted_for_s(self) -> float:
        """Seconds since the first signal to leave; 0 before it."""
        return time.monotonic() - self._interrupted_at if self.interrupted else 0.0

    @property
    def requested(self) -> bool:
        """No other trial may be taken."""
        return self._draining or self.interrupted

    @property
    def exit_code(self) -> int:
        """How the process should end: 130 after a Ctrl-C, else 0."""
        return INTERRUPTED_EXIT_CODE if self._by_keyboard else 0

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until an interrupt."""
        deadline = time.monotonic() + seconds
        while not self._interrupted and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE_S))

    def _install(self, number: int, handler: Any) -> None:
        self._previous[number] = signal.signal(number, handler)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        # The old handlers are back: a second signal is not asked to wait for anything.
        self._restore()
        self._by_keyboard = number == signal.SIGINT
        self.interrupt()

    def _on_drain(self, number: int, frame: FrameType | None) -> None:
        self.drain()
