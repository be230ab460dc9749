"""Optuna's tree-structured Parzen estimator, with the space sampled together."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from skdtune.describe.identity import derive_seed
from skdtune.describe.sampler_settings import SamplerSettings

if TYPE_CHECKING:
    from optuna.samplers import TPESampler


class TpeConfig(SamplerSettings):
    """Propose what resembles the good trials more than the others, once there are enough."""

    of_first_release = True

    name: Literal["tpe"] = "tpe"
    """Name of the sampler; the parameters of a conditional space are sampled in groups."""

    num_startup_trials: int = Field(default=10, ge=0)
    """Finished trials before TPE takes over from random sampling."""

    def build(self, study_seed: int, number: int) -> TPESampler:
        """Build Optuna's sampler, seeded for one trial."""
        import optuna

        with warnings.catch_warnings():
            # `group` is marked experimental; without it a conditional parameter is never sampled
            # together with the others.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                n_startup_trials=self.num_startup_trials,
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=derive_seed(study_seed, "sampler", number),
            )
