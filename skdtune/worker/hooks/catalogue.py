"""The hooks of every attempt, in the order in which they are called."""

from __future__ import annotations

from collections.abc import Callable

from skdtune.worker.hooks.hook import Hook, TrialInHand
from skdtune.worker.hooks.kept_network import KeptNetworkHook
from skdtune.worker.hooks.log_lines import LogLines
from skdtune.worker.hooks.peak_memory import PeakMemoryHook
from skdtune.worker.hooks.time_limits import TimeLimits

HOOKS: tuple[Callable[[TrialInHand], Hook], ...] = (
    TimeLimits,
    LogLines,
    PeakMemoryHook,
    KeptNetworkHook,
)
