"""Optuna's samplers and pruners, built from a study spec."""

from __future__ import annotations

import copy
import warnings

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from skdtune.rungs import AshaConfig, HyperbandConfig, MedianConfig, PrunerConfig
from skdtune.spec import SamplerConfig, derive_seed


def build_sampler(config: SamplerConfig, study_seed: int, number: int) -> BaseSampler:
    """Build the sampler that proposes one trial.

    Each trial has a sampler of its own, seeded from the study's seed and the trial's number:
    parallel workers never propose the same point twice, and a proposal can be repeated from the
    history it was based on.
    """
    seed = derive_seed(study_seed, "sampler", number)
    if config.name == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # `group` is marked experimental; without it a conditional parameter is never sampled
        # together with the others.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            n_startup_trials=config.num_startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )


def build_pruner(config: PrunerConfig, epochs: int) -> BasePruner:
    """Build the pruner of a study; it judges exactly at the rungs of ``skdtune.rungs``.

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


def in_finished_epochs(trial: FrozenTrial) -> FrozenTrial:
    """Return a view of a trial whose steps count finished epochs, from 1."""
    shifted = copy.copy(trial)
    shifted.intermediate_values = {
        step + 1: value for step, value in trial.intermediate_values.items()
    }
    return shifted
