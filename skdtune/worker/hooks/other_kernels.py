"""A trial that is computed with other kernels than its study's trials has that in its story."""

from __future__ import annotations

import contextlib

from skdtune.errors import StorageAwayError
from skdtune.queue.events import EventKind
from skdtune.worker.hooks.hook import Hook, TrialInHand


class OtherKernelsHook(Hook):
    """Notes it when a trial starts; the log of the worker has it once, in its first lines."""

    def __init__(self, attempt: TrialInHand) -> None:
        self._place = attempt.place
        self._claim = attempt.claim

    def starts(self) -> None:
        """Note it."""
        with contextlib.suppress(StorageAwayError):
            difference = self._place.kernels.difference()
            if difference:
                self._place.queue.once.note(self._claim, EventKind.NOTED, 0, difference)
