"""The kernels of a worker beside those that the trials of its study were computed with."""

from __future__ import annotations

import torch

from skdtune.errors import DeviceError
from skdtune.models.kernels.library import NATIVE_VARIABLE
from skdtune.queue.trial_queue import TrialQueue
from skdtune.training.device import describe_kernels


class StudyKernels:
    """Tells whether this worker computes as the trials of the study were computed.

    Args:
        queue: The queue of the study.
        device: Where the worker trains.
    """

    def __init__(self, queue: TrialQueue, device: torch.device) -> None:
        self._queue = queue
        self._device = device
        self._usual: tuple[str, int] | None = None

    def difference(self) -> str:
        """Say how this worker computes otherwise; empty where it does not, or is the first."""
        # Asked until there is an answer, then no more: it is read from all trials.
        self._usual = self._usual or self._queue.usual_kernels()
        here = describe_kernels(self._device)
        if self._usual is None or self._usual[0] == here:
            return ""
        usual, count = self._usual
        trials = "1 trial" if count == 1 else f"{count} trials"
        return f"{trials} of this study computed with {usual} kernels, this worker has {here}"

    def require(self) -> None:
        """Refuse to compute otherwise, or on a CPU without kernels of our own.

        Raises:
            DeviceError: If this worker does.
        """
        difference = self.difference()
        has_none = self._device.type == "cpu" and describe_kernels(self._device) == "torch"
        if self._usual is None and has_none:
            difference = "this worker has no kernels but torch's"
        if difference:
            raise DeviceError(
                f"{difference}: install a C compiler, look at {NATIVE_VARIABLE}, or leave out "
                "--require-kernels"
            )
