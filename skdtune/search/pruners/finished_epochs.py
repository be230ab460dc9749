"""Optuna's successive halving and Hyperband with the resource counted in finished epochs.

Optuna's steps are epochs counted from 0, so that a rung of 3 would be judged after 4 epochs.
"""

from __future__ import annotations

import copy

import optuna
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial


class AshaPruner(SuccessiveHalvingPruner):
    """Optuna's successive halving in finished epochs."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judge a trial at the end of an epoch."""
        return super().prune(study, in_finished_epochs(trial))


class EpochHyperbandPruner(HyperbandPruner):
    """Optuna's Hyperband in finished epochs, with the number of brackets counted exactly.

    Optuna takes the floor of a floating-point logarithm, which loses a bracket for 243 epochs
    and eta 3 (optuna#6835).

    Args:
        min_resource: Finished epochs at the first rung.
        max_resource: Planned epochs of a trial.
        reduction_factor: Eta.
        num_brackets: How many brackets there are.
    """

    def __init__(
        self, *, min_resource: int, max_resource: int, reduction_factor: int, num_brackets: int
    ) -> None:
        super().__init__(
            min_resource=min_resource,
            max_resource=max_resource,
            reduction_factor=reduction_factor,
        )
        self._n_brackets = num_brackets

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judge a trial at the end of an epoch, within its bracket."""
        return super().prune(study, in_finished_epochs(trial))

    def bracket(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """Return the bracket of a trial; it follows from the study's name and its number."""
        if not self._pruners:
            self._try_initialization(study)
        return self._get_bracket_id(study, trial)


def in_finished_epochs(trial: FrozenTrial) -> FrozenTrial:
    """Return a view of a trial whose steps count finished epochs, from 1."""
    shifted = copy.copy(trial)
    shifted.intermediate_values = {
        step + 1: value for step, value in trial.intermediate_values.items()
    }
    return shifted
