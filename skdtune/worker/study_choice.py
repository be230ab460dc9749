"""Which of several studies a worker takes its next trial of.

Fair is who has the most left to do for each of its workers: the share of the workers that a study
has follows its share of the work, all studies end at about the same time, and the fewest trials of
one study run side by side, which is what its sampler learns the most from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What one study has left to do, and who does it."""

    left: float
    """Epochs of the trials that wait, each as long as one that is not pruned."""

    workers: int
    """Workers that have a trial of it in hand."""


def order_of_service(loads: Sequence[Load], *, in_order: bool = False) -> list[int]:
    """Return the studies to take a trial of, by index, the one to try first first.

    A worker that would take its trial is counted: the most epochs for each of ``workers + 1``
    come first (as seats are given in a parliament after d'Hondt). The earlier study wins a tie.

    Args:
        loads: The studies, in the order that a person named them, or in which they were made.
        in_order: Take the first that has a trial, whoever works on it; nobody waits for its end.

    Returns:
        Those in which a trial waits.
    """
    waiting = [index for index, load in enumerate(loads) if load.left > 0]
    if in_order:
        return waiting
    return sorted(waiting, key=lambda index: -loads[index].left / (loads[index].workers + 1))
