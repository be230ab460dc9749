"""Self-distillation from the last mini-batch (DLB): its settings."""

from __future__ import annotations

from pydantic import Field

from skdtune.describe.term_config import BatchPlanName, TermConfig
from skdtune.describe.training_length import TrainingLength


class DlbConfig(TermConfig):
    """Distillation from the last mini-batch, whose second views are classified again."""

    of_first_release = True
    term = "skdtune.methods.dlb.term:Dlb"
    why_unmixed = "it classifies a batch again when the labels are those of the next one"

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation term; 0 switches the whole method off (none is published)."""

    temperature: float = Field(default=3.0, gt=0)
    """Softmax temperature (3 in the name that the published script gives its results)."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image in two views, of which one is kept for the next step."""
        return "two_views" if self.weight else "plain"

    def require_length(self, name: str, length: TrainingLength) -> None:
        """Refuse a training of one batch; across epochs there is a batch before each but one."""
        if self.weight and length.steps * length.epochs < 2:
            raise ValueError(
                f"method.{name}: learns from the batch before, there is one epoch, and "
                f"{length.too_few_images}"
            )
