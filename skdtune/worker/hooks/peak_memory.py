"""The most memory that an attempt held, left with the trial."""

from __future__ import annotations

from typing import Any

from skdtune.queue.trial_attributes import PEAK_MEMORY_MB
from skdtune.training.peak_memory import PeakMemory
from skdtune.worker.endings import Ending
from skdtune.worker.hooks.hook import Hook, TrialInHand


class PeakMemoryHook(Hook):
    """Measures from the start of the training on."""

    def __init__(self, attempt: TrialInHand) -> None:
        self._device = attempt.place.store.device
        self._peak: PeakMemory | None = None

    def starts(self) -> None:
        """Forget the peak of the trials before."""
        self._peak = PeakMemory(self._device)

    def attributes(self, ending: Ending) -> tuple[dict[str, Any], dict[str, Any]]:
        """Leave the peak, where it can be told."""
        mebibytes = None if self._peak is None else self._peak.mebibytes
        return ({} if mebibytes is None else {PEAK_MEMORY_MB: round(mebibytes, 1)}), {}
