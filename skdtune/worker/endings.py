"""How an attempt at a trial can end, and what follows from it: one table."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import TrialState

from skdtune.errors import NonFiniteLossError
from skdtune.queue.events import EventKind
from skdtune.training.device import is_out_of_memory

#: Lines of a traceback that are kept with a failed trial.
_TRACEBACK_LINES = 12


@dataclass(frozen=True, kw_only=True)
class Consequence:
    """What follows from an ending."""

    state: TrialState
    """State of the trial, where the ending is final."""

    is_failure: bool = True
    """Kind and reason are left with the trial."""

    may_retry: bool = False
    """It goes back to the queue as long as the study's ``faults.retries`` allow."""

    may_pause: bool = False
    """As many as the study's ``faults.pause_after_equal_errors`` in a row pause it."""


CONSEQUENCES: Mapping[EventKind, Consequence] = {
    EventKind.COMPLETE: Consequence(state=TrialState.COMPLETE, is_failure=False),
    EventKind.PRUNED: Consequence(state=TrialState.PRUNED, is_failure=False),
    # Pruned, not failed: the sampler must learn that this corner is bad. It would be NaN again.
    EventKind.NAN: Consequence(state=TrialState.PRUNED),
    EventKind.OOM: Consequence(state=TrialState.FAIL, may_retry=True),
    EventKind.TIMEOUT: Consequence(state=TrialState.FAIL, may_retry=True),
    EventKind.ERROR: Consequence(state=TrialState.FAIL, may_retry=True, may_pause=True),
    EventKind.PREEMPTED: Consequence(state=TrialState.FAIL, may_retry=True),
    # Who reaps a trial gives it back; this ends one that killed one worker after the other.
    EventKind.LOST: Consequence(state=TrialState.FAIL),
}


@dataclass(frozen=True)
class Ending:
    """What happened to an attempt."""

    kind: EventKind
    detail: str = ""
    """A sentence for people; below it, after an error, the end of its traceback."""

    @property
    def reason(self) -> str:
        """The sentence alone."""
        return self.detail.partition("\n")[0]

    @property
    def consequence(self) -> Consequence:
        """What follows from it."""
        return CONSEQUENCES[self.kind]


def ending_of_error(error: Exception) -> Ending:
    """Tell how a training ended that raised an error: NaN, out of memory, or any other."""
    if isinstance(error, NonFiniteLossError):
        return Ending(EventKind.NAN, str(error))
    line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    lines = "".join(traceback.format_exception(error)).splitlines()[-_TRACEBACK_LINES:]
    detail = "\n".join([f"{type(error).__name__}: {line}"[:500], *lines])
    return Ending(EventKind.OOM if is_out_of_memory(error) else EventKind.ERROR, detail)
