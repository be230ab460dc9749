"""One of two threads settles how a trial ended: the worker's, or the one that sees it hang."""

from __future__ import annotations

import threading


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
