"""Be your own teacher (BYOT): its settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from skdtune.describe.data_config import DataConfig
from skdtune.describe.model_config import ModelConfig, check_stages
from skdtune.describe.settings import LATER, Stages
from skdtune.describe.term_config import TermConfig


class ByotConfig(TermConfig):
    """Be your own teacher: the final classifier teaches auxiliary classifiers."""

    of_first_release = True
    term = "skdtune.methods.byot.term:Byot"
    why_unmixed = ""
    memory_fields = ("stages", "adapter_width")

    weight: float = Field(default=0.1, ge=0, lt=1)
    """Share of the distillation; every cross-entropy gets the rest (published: 0.1)."""

    temperature: float = Field(default=3.0, gt=0)
    """Softmax temperature (published: 3)."""

    stages: Stages | None = None
    """Stages that carry an auxiliary classifier, counted from 1; default all but the last."""

    aux_ce_weight: float = Field(default=1.0, ge=0)
    """Weight of the summed cross-entropies of the auxiliary classifiers (published: 1)."""

    match_features: bool = True
    """Pull the features of the auxiliary classifiers to the final ones too."""

    feature_weight: float = Field(default=1e-6, ge=0)
    """Weight of that, a sum over batch and channels and so small (published: 1e-6)."""

    adapter_width: Annotated[float, LATER] = Field(default=1.0, gt=0, le=1)
    """Share of the published channels within the auxiliary classifiers, in steps of 16 channels;
    below 1 they are smaller, behind a 1x1 convolution that narrows the stage's output."""

    def require_fit(self, name: str, data: DataConfig, model: ModelConfig) -> None:
        """Refuse stages that cannot carry an auxiliary classifier."""
        every_inner_stage = tuple(range(1, model.num_stages))
        check_stages(name, every_inner_stage if self.stages is None else self.stages, model)
