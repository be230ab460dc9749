"""What a worker's log says of a trial: its start, each epoch with ``-v``, and its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from skdtune.describe.epoch_report import EpochReport
from skdtune.describe.value_format import format_value
from skdtune.worker.endings import Ending
from skdtune.worker.hooks.hook import Hook, TrialInHand

logger = logging.getLogger(__name__)


class LogLines(Hook):
    """Writes a line for each of them."""

    def __init__(self, attempt: TrialInHand) -> None:
        self._claim = attempt.claim
        self._spec = attempt.place.stored.spec

    def starts(self) -> None:
        """Say which trial it is, and which attempt."""
        attempt = self._claim.attempt
        again = f", attempt {attempt}" if attempt > 1 else ""
        device = self._claim.worker.device
        logger.info("trial %d starts on %s%s", self._claim.number, device, again)

    def epoch_starts(self, epochs: Sequence[EpochReport]) -> None:
        """Say that an epoch starts, unless all are trained."""
        planned = self._spec.budget.epochs
        if len(epochs) < planned:
            number = self._claim.number
            logger.debug("trial %d epoch %d/%d starts", number, len(epochs) + 1, planned)

    def reported(self, report: EpochReport) -> None:
        """Say what an epoch brought."""
        kind = self._spec.kind
        logger.debug(
            "trial %d epoch %d/%d: %s %s, %.1f s",
            self._claim.number,
            report.epoch + 1,
            self._spec.budget.epochs,
            kind.step_name,
            format_value(report.value, kind.step_name),
            report.seconds,
        )

    def ended(self, ending: Ending, num_epochs: int, value: float | None) -> None:
        """Say how it ended."""
        if ending.consequence.is_failure or value is None:
            logger.warning(
                "trial %d ended (%s): %s", self._claim.number, ending.kind.value, ending.reason
            )
        else:
            name = self._spec.kind.metric_name
            logger.info(
                "trial %d %s after epoch %d: %s %s",
                self._claim.number,
                ending.kind.value,
                num_epochs,
                name,
                format_value(value, name),
            )

    def given_back(self, ending: Ending) -> None:
        """Say that it waits again, and why."""
        logger.info("trial %d was given back to the queue: %s", self._claim.number, ending.reason)
