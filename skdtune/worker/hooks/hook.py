"""What accompanies a trial in hand: a concern of its own in a file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from skdtune.data.store import DataOnDevice
from skdtune.describe.epoch_report import EpochReport
from skdtune.queue.leases import Claim
from skdtune.training.trainer import Trainer
from skdtune.worker.endings import Ending
from skdtune.worker.workplace import Workplace


class TrialInHand(Protocol):
    """What a hook may know of the attempt that it accompanies, and ask of it."""

    @property
    def place(self) -> Workplace:
        """The study, its queue and the data."""

    @property
    def claim(self) -> Claim:
        """The trial that was claimed."""

    @property
    def epochs(self) -> Sequence[EpochReport]:
        """Its finished epochs."""

    def value(self) -> float:
        """Return what its objective came to."""

    def say(self, message: str) -> None:
        """Tell people, and the trial's story, of something that the trial outlives."""

    def expire(self, reason: str) -> None:
        """Let the training end as soon as it notices, between two steps."""

    def settle_hanging(self, reason: str) -> None:
        """Settle the trial from another thread, because its training does not react."""


class Hook:
    """Accompanies one attempt; whatever a hook does not care for it leaves as it is here.

    Made anew for each attempt, before it begins.

    Args:
        attempt: The trial in hand.

    Entered before the trial is sampled and left when its training is over, before that is
    settled, the last one of the catalogue first. Methods are called from the worker's own thread;
    but where a training hangs, the thread that saw it calls `attributes`, `ended` and
    `given_back`.

    An error that a hook raises while the trial trains counts as the trial's own. One that it
    raises at its entry or after an ending ends the worker.
    """

    def __init__(self, attempt: TrialInHand) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def starts(self) -> None:
        """The trial's configuration is known; its training is about to be built."""

    def epoch_starts(self, epochs: Sequence[EpochReport]) -> None:
        """Another epoch is trained from here on, unless these are all of them.

        Args:
            epochs: The finished ones.
        """

    def epoch_ends(self) -> None:
        """The training waits: what follows may wait for the storage."""

    def reported(self, report: EpochReport) -> None:
        """An epoch was written to a checkpoint, stored and judged."""

    def trained(self, trainer: Trainer, data: DataOnDevice) -> None:
        """The training ran to its end and is about to be complete."""

    def attributes(self, ending: Ending) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the user and the system attributes to leave with a trial that ends for good."""
        return {}, {}

    def ended(self, ending: Ending, num_epochs: int, value: float | None) -> None:
        """The trial ended for good.

        Args:
            ending: How.
            num_epochs: Its finished epochs.
            value: What its objective came to, or the last epoch's accuracy of a pruned one.
        """

    def given_back(self, ending: Ending) -> None:
        """The trial waits in the queue again."""

    def lost(self) -> None:
        """The trial turned out to be somebody else's when it was to be settled."""
