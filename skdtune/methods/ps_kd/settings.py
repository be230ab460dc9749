"""Progressive self-knowledge distillation (PS-KD): its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skdtune.describe.term_config import BatchPlanName, LabelTermConfig
from skdtune.describe.training_length import TrainingLength


class PsKdConfig(LabelTermConfig):
    """Progressive self-knowledge distillation: the label is mixed with remembered predictions."""

    of_first_release = True
    term = "skdtune.methods.ps_kd.term:PsKd"
    why_unmixed = "it remembers what it said of every image alone"

    name: Literal["ps_kd"] = "ps_kd"
    """Name of the label term."""

    weight: float = Field(default=0.8, ge=0, le=1)
    """Share of the remembered prediction in the last planned epoch's target (published: 0.8)."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image once in an epoch: what is remembered of it is one prediction."""
        return "indexed" if self.weight else "plain"

    def require_length(self, name: str, length: TrainingLength) -> None:
        """Refuse one epoch, in which nothing is remembered yet."""
        if self.weight and length.epochs < 2:
            raise ValueError(
                f"method.{name}: {self.name} learns from the predictions of the epoch before, and "
                "there is one epoch: take a budget.epochs of 2 or more, or another method"
            )
