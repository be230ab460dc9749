"""How many threads a worker on the CPU computes with, decided for each trial.

More threads than a network and its batch can feed wait for each other, and beside busy neighbours
they wait at every step for the one that has no core: two then take up to four times as long as
one (`benchmarks/threads.py`, table in docs/performance.md). So a trial gets as many threads as pay
for themselves, but no more than there are cores that nobody else uses. What a person asked for
counts before all that, and a trial that goes on keeps the number that it began with: how sums
are split decides their last digits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch

from skdtune.cores import THREADS_VARIABLE, CoreWatch, num_cores
from skdtune.errors import InputError

#: What a layer costs beside its products, in multiply-adds: no thread shortens that. Measured:
#: two threads gain 1.10 at 2.5 million multiply-adds a layer and step, 1.44 at 40, 1.7 at 120 to
#: 240 and 1.9 from a thousand on; with this number the model says 1.04, 1.40, 1.66 to 1.80, 1.97.
_SERIAL = 30e6
#: A further thread must bring so much of a core.
_WORTHWHILE = 0.5
#: A core that is busy for less than this is taken for free.
_TOLERATED = 0.2


def worthwhile_threads(work: float, most: int) -> int:
    """Return how many threads pay for themselves where every one has a core.

    Args:
        work: Multiply-adds of a layer in one step.
        most: Threads that there may be at most.
    """
    serial = _SERIAL / (_SERIAL + work)

    def speed(threads: int) -> float:
        return 1 / (serial + (1 - serial) / threads)

    threads = 1
    while threads < most and speed(threads + 1) - speed(threads) >= _WORTHWHILE:
        threads += 1
    return threads


class Threads:
    """The threads of this process while a worker runs; afterwards they are what they were.

    Args:
        device: Where the worker trains. Beside a GPU threads stay as they are.
        asked: Number of threads that a person asked for. Without it ``OMP_NUM_THREADS`` counts,
            and without that what this file is about.

    Raises:
        InputError: If less than one was asked for.
    """

    def __init__(self, device: torch.device, asked: int | None = None) -> None:
        if asked is not None and asked < 1:
            raise InputError(f"threads: expected at least 1, received {asked}")
        self._before = torch.get_num_threads()
        self._cores = num_cores()
        self._because = ""
        self._fixed = asked
        if asked is None and (device.type != "cpu" or os.environ.get(THREADS_VARIABLE)):
            self._fixed = self._before
        self._is_on_cpu = device.type == "cpu"
        self._watch = CoreWatch() if self._fixed is None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        torch.set_num_threads(self._before)

    def __str__(self) -> str:
        threads = torch.get_num_threads()
        because = f" ({self._because})" if self._because else ""
        return f"{threads} {'thread' if threads == 1 else 'threads'}{because}"

    def take(self, work: Callable[[], float], began_with: int | None = None) -> bool:
        """Let torch compute with as many threads as a trial shall have.

        Args:
            work: Returns the multiply-adds of a layer in one step; asked only if that matters.
            began_with: Threads that its epochs so far were computed with, None before the first.

        Returns:
            Whether there were others before.
        """
        before, self._because = torch.get_num_threads(), ""
        if began_with and self._is_on_cpu:
            # More than a person asked for, or than there are cores, is not to be had.
            threads = max(1, min(began_with, self._fixed or self._cores))
            self._because = "as the trial began" if threads == began_with else ""
        else:
            threads = self._fixed or self._by_rule(work())
        torch.set_num_threads(threads)
        return threads != before

    def _by_rule(self, work: float) -> int:
        useful = worthwhile_threads(work, self._cores)
        if useful > 1 and self._watch is not None:
            free = max(1, math.floor(self._watch.num_free() + _TOLERATED))
            if free < useful:
                self._because = "the other cores are busy"
                return free
        if useful < self._cores:
            self._because = "more would wait for each other"
        return useful
