"""The network of a trial that ran to its end, kept where the study wants it."""

from __future__ import annotations

import logging
from typing import Any

from skdtune.data.store import DataOnDevice
from skdtune.networks.keeping import is_wanted, keep_network
from skdtune.networks.network_artifact import remove_artifact
from skdtune.queue.events import EventKind
from skdtune.queue.kept_network import KeptNetwork
from skdtune.training.files import reason_of
from skdtune.training.trainer import Trainer
from skdtune.worker.endings import Ending
from skdtune.worker.hooks.hook import Hook, TrialInHand

logger = logging.getLogger(__name__)


class KeptNetworkHook(Hook):
    """Writes the network into the artifact store; the trial's end makes it known."""

    def __init__(self, attempt: TrialInHand) -> None:
        self._attempt = attempt
        self._kept: KeptNetwork | None = None

    def trained(self, trainer: Trainer, data: DataOnDevice) -> None:
        """Keep the network if the study wants it; without it the trial is complete, too."""
        attempt, stored = self._attempt, self._attempt.place.stored
        value, last = attempt.value(), attempt.epochs[-1]
        if not attempt.place.queue.call(is_wanted, stored, value):
            return
        # A study's value may be a mean over epochs, which no network has.
        accuracy = value if last.val_accuracy is None else last.val_accuracy
        number, url = attempt.claim.number, attempt.place.artifacts
        try:
            self._kept = keep_network(url, stored, number, trainer, data, accuracy)
        except Exception as error:
            logger.debug("trial %d: its network", number, exc_info=True)
            attempt.say(f"its network is not kept: {reason_of(error)}")

    def attributes(self, ending: Ending) -> tuple[dict[str, Any], dict[str, Any]]:
        """Name the network with a trial that is complete."""
        if self._kept is None or ending.kind is not EventKind.COMPLETE:
            return {}, {}
        return self._kept.user_attributes, self._kept.system_attributes

    def lost(self) -> None:
        """Remove the file: nobody will know of it."""
        if self._kept is not None:
            remove_artifact(self._attempt.place.artifacts, self._kept.file.artifact_id)
