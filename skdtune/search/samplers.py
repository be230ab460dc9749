"""Optuna's samplers, built from a study spec."""

from __future__ import annotations

import warnings

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from skdtune.describe.identity import derive_seed
from skdtune.describe.spec import SamplerConfig


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
