"""Batch knowledge ensembling (BAKE): its settings."""

from __future__ import annotations

from pydantic import Field

from skdtune.describe.data_config import DataConfig
from skdtune.describe.model_config import ModelConfig
from skdtune.describe.term_config import BatchPlanName, TermConfig


class BakeConfig(TermConfig):
    """Batch knowledge ensembling: similar images of the batch teach each other."""

    of_first_release = True
    term = "skdtune.methods.bake.term:Bake"
    why_unmixed = "its groups show one class"

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation term (published: 1)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (published: 4)."""

    omega: float = Field(default=0.5, ge=0, lt=1)
    """How much of a target comes from other images (published: 0.5)."""

    num_companions: int = Field(default=3, ge=1, le=31)
    """Images of the same class beside each image; one more of them must divide the batch."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image with companions of its class."""
        return "groups" if self.weight else "plain"

    @property
    def companions(self) -> int:
        """Images of the same class beside each image."""
        return self.num_companions if self.weight else 0

    def require_fit(self, name: str, data: DataConfig, model: ModelConfig) -> None:
        """Refuse a batch that groups of an image and its companions do not fill."""
        if data.batch_size % (1 + self.num_companions):
            raise ValueError(
                f"method.{name}.num_companions: one more than it must divide data.batch_size "
                f"({data.batch_size}), received {self.num_companions}"
            )
