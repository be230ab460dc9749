"""Why a trial was pruned, in a sentence."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from skdtune.describe.value_format import format_accuracy


def describe_rank(trials: Sequence[FrozenTrial], number: int, epoch: int, value: float) -> str:
    """Say in a sentence what a trial was compared with when it was pruned.

    Args:
        trials: The trials of the study.
        number: The one that was pruned.
        epoch: The epoch, counted from 0.
        value: Its validation accuracy there.
    """
    others = {
        trial.number: trial.intermediate_values[epoch]
        for trial in trials
        if trial.number != number and epoch in trial.intermediate_values
    }
    if not others:
        return f"after epoch {epoch + 1} with {format_accuracy(value)}"
    better = sorted((v, n) for n, v in others.items() if v > value)[::-1]
    best = ", ".join(f"trial {n} {format_accuracy(v)}" for v, n in better[:3])
    median = statistics.median(others.values())
    return (
        f"after epoch {epoch + 1} with {format_accuracy(value)}: place {len(better) + 1} of the "
        f"{len(others) + 1} trials seen there, median of the others {format_accuracy(median)}"
        + (f"; ahead: {best}" if best else "")
    )
