"""Random sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from skdtune.describe.identity import derive_seed
from skdtune.describe.sampler_settings import SamplerSettings

if TYPE_CHECKING:
    from optuna.samplers import RandomSampler


class RandomConfig(SamplerSettings):
    """Propose independently of all other trials."""

    of_first_release = True

    name: Literal["random"]
    """Name of the sampler."""

    num_startup_trials: int = Field(default=10, ge=0)
    """Changes nothing here; studies of the first release hold it for either sampler."""

    def build(self, study_seed: int, number: int) -> RandomSampler:
        """Build Optuna's sampler, seeded for one trial."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=derive_seed(study_seed, "sampler", number))
