"""What the settings of every sampler have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from skdtune.describe.settings import Frozen


class SamplerSettings(Frozen):
    """Base of the settings of a sampler; each has a field ``name``, the one of the catalogue."""

    if TYPE_CHECKING:
        # Every sampler writes it out itself: it is what tells one's settings from another's.
        name: str

    @abstractmethod
    def build(self, study_seed: int, number: int) -> Any:
        """Return the ``optuna.samplers.BaseSampler`` that proposes one trial.

        Each trial has a sampler of its own, seeded from the study's seed and the trial's number
        (``derive_seed(study_seed, "sampler", number)``): parallel workers never propose the same
        point twice, and a proposal can be repeated from the history it was based on.
        """
