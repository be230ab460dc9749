"""Optuna's pruners, in finished epochs, built from a study spec."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import FrozenTrial

from skdtune.describe.rungs import AshaConfig, HyperbandConfig, MedianConfig, PrunerConfig


def build_pruner(config: PrunerConfig, epochs: int) -> BasePruner:
    """Build the pruner of a study; it judges exactly at the rungs of ``skdtune.describe.rungs``.

    Args:
        config: The spec's pruner.
        epochs: Planned epochs of a trial.
    """
    if isinstance(config, MedianConfig):
        # Optuna counts warm-up steps from 0: step n-1 is the end of the n-th epoch.
        return MedianPruner(
            n_startup_trials=config.num_startup_trials,
            n_warmup_steps=config.first_epoch(epochs) - 1,
            interval_steps=config.interval_epochs,
        )
    if isinstance(config, AshaConfig):
        return AshaPruner(
            min_resource=config.first_rung(epochs), reduction_factor=config.reduction_factor
        )
    if isinstance(config, HyperbandConfig):
        return EpochHyperbandPruner(config, epochs)
    return NopPruner()


class AshaPruner(SuccessiveHalvingPruner):
    """Optuna's successive halving, with the resource counted in finished epochs.

    Steps are epochs counted from 0, so that a rung of 3 would be judged after 4 epochs.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judge a trial at the end of an epoch."""
        return super().prune(study, in_finished_epochs(trial))


class EpochHyperbandPruner(HyperbandPruner):
    """Optuna's Hyperband in finished epochs, with the number of brackets counted exactly.

    Optuna takes the floor of a floating-point logarithm, which loses a bracket for 243 epochs
    and eta 3 (optuna#6835).
    """

    def __init__(self, config: HyperbandConfig, epochs: int) -> None:
        super().__init__(
            min_resource=config.first_rung(epochs),
            max_resource=epochs,
            reduction_factor=config.reduction_factor,
        )
        self._n_brackets = len(config.brackets(epochs))

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judge a trial at the end of an epoch, within its bracket."""
        return super().prune(study, in_finished_epochs(trial))

    def bracket(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """Return the bracket of a trial; it follows from the study's name and its number."""
        if not self._pruners:
            self._try_initialization(study)
        return self._get_bracket_id(study, trial)


def rung_marks_beyond(study: optuna.Study, trial: FrozenTrial, num_finished: int) -> list[str]:
    """Name the rung marks of a trial that lie beyond an epoch.

    A trial that goes back to its last checkpoint is judged again at the rungs after it, and must
    not be compared with what it had reached before.

    Args:
        study: The study with its pruner.
        trial: The trial with the marks that Optuna's successive halving left on it.
        num_finished: Finished epochs that the trial goes back to.
    """
    pruner = study.pruner
    if isinstance(pruner, EpochHyperbandPruner):
        skipped = pruner.bracket(study, trial)
    elif isinstance(pruner, AshaPruner):
        skipped = 0
    else:
        return []
    first = int(pruner._min_resource or 1)
    marks = []
    rung = 0
    while (mark := f"completed_rung_{rung}") in trial.system_attrs:
        if first * pruner._reduction_factor ** (skipped + rung) > num_finished:
            marks.append(mark)
        rung += 1
    return marks


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
        return f"after epoch {epoch + 1} with {value:.4f}"
    better = sorted((v, n) for n, v in others.items() if v > value)[::-1]
    best = ", ".join(f"trial {n} {v:.4f}" for v, n in better[:3])
    median = statistics.median(others.values())
    return (
        f"after epoch {epoch + 1} with {value:.4f}: place {len(better) + 1} of the "
        f"{len(others) + 1} trials seen there, median of the others {median:.4f}"
        + (f"; ahead: {best}" if best else "")
    )


def in_finished_epochs(trial: FrozenTrial) -> FrozenTrial:
    """Return a view of a trial whose steps count finished epochs, from 1."""
    shifted = copy.copy(trial)
    shifted.intermediate_values = {
        step + 1: value for step, value in trial.intermediate_values.items()
    }
    return shifted
