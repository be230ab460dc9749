"""How long studies will take, before anything of them is trained."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from skdtune.analysis.tables import format_duration


@dataclass(frozen=True)
class TrialsAhead:
    """The trials of one study that are to be trained."""

    number: int
    trial_s: float
    """Seconds of one that is not pruned."""


def seconds_ahead(studies: Sequence[TrialsAhead], num_workers: int) -> float:
    """Return the seconds until the last trial ends, if none is pruned.

    Trials are dealt out whole, the longest first, each to the worker that is free first: five on
    four workers take as long as eight.
    """
    free_at = [0.0] * num_workers
    for study in sorted(studies, key=lambda study: -study.trial_s):
        for _ in range(study.number):
            heapq.heappush(free_at, heapq.heappop(free_at) + study.trial_s)
    return max(free_at)


def describe_time_ahead(studies: Sequence[TrialsAhead], num_workers: int, source: str) -> str:
    """Say how long some studies will take, with one worker and with those that are asked for.

    Args:
        studies: What is to be trained.
        num_workers: Workers that are asked for.
        source: How it is known.
    """
    alone = format_duration(seconds_ahead(studies, 1))
    together = format_duration(seconds_ahead(studies, num_workers))
    with_all = f", {together} with {num_workers}" if num_workers > 1 else ""
    return (
        f"at most about {alone} with 1 worker{with_all} ({source}; less where trials are pruned)"
    )
