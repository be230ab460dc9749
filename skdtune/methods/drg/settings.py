"""Distillation with reverse guidance (DRG): its settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from skdtune.describe.data_config import DataConfig
from skdtune.describe.model_config import ModelConfig, check_stages
from skdtune.describe.settings import LATER, Stages
from skdtune.describe.term_config import TermConfig


class DrgConfig(TermConfig):
    """Distillation with reverse guidance: shallow auxiliary classifiers teach the final one."""

    of_first_release = True
    term = "skdtune.methods.drg.term:Drg"
    why_unmixed = ""
    memory_fields = ("stages", "adapter_width")

    weight: float = Field(default=0.2, ge=0)
    """Weight of the distillation term (published: 0.2)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (published: 4)."""

    stages: Stages = (2,)
    """Stages that carry an auxiliary classifier, counted from 1 (published: stage 2)."""

    aux_ce_weight: float = Field(default=1.0, ge=0)
    """Weight of the mean cross-entropy of the auxiliary classifiers (published: 1)."""

    teacher: Literal["mean_probs", "mean_logits"] = "mean_probs"
    """How several stages make one teacher; the same thing for one stage."""

    align_corners: bool | Literal["published"] = False
    """Up-sampling of the attention gate; ``published`` is true on stage 2 and false elsewhere."""

    adapter_width: Annotated[float, LATER] = Field(default=1.0, gt=0, le=1)
    """Share of the published channels within the auxiliary classifiers, in steps of 16 channels;
    below 1 they are smaller, behind a 1x1 convolution that narrows the stage's output."""

    def require_fit(self, name: str, data: DataConfig, model: ModelConfig) -> None:
        """Refuse stages that cannot carry an auxiliary classifier."""
        check_stages(name, self.stages, model)
