"""The most memory that a training held at once.

On a GPU that is what PyTorch's allocator gave out; on the CPU the resident memory of the whole
process, which only Linux lets a process measure anew for each trial.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
#: Tells the kernel to forget the peak so far (proc(5)).
_FORGET_PEAK = "5"


class PeakMemory:
    """Measures from its making on.

    Args:
        device: Where the training computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_reset = _reset(device)

    @property
    def mebibytes(self) -> float | None:
        """The peak so far in MiB; None where it cannot be told."""
        if not self._is_reset:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        try:
            lines = _STATUS.read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            name, _, size = line.partition(":")
            if name == "VmHWM":
                return int(size.split()[0]) / 1024
        return None


def _reset(device: torch.device) -> bool:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if sys.platform != "linux":
        return False
    try:
        _CLEAR.write_text(_FORGET_PEAK)
    except OSError:
        # Some containers do not allow it; a peak of earlier trials would be a wrong number.
        return False
    return True
