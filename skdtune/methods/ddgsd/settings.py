"""Data-distortion guided self-distillation (DDGSD): its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skdtune.describe.term_config import BatchPlanName, TermConfig


class DdgsdConfig(TermConfig):
    """Data-distortion guided self-distillation: two views of an image teach each other."""

    of_first_release = True
    term = "skdtune.methods.ddgsd.term:Ddgsd"
    why_unmixed = "its two views show one image"

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation terms; 0 switches the whole method off (reference: 1)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (reference: 4)."""

    match_features: bool = True
    """Pull the mean features of the two views together too."""

    feature_weight: float = Field(default=5e-4, ge=0)
    """Weight of that (published: 5e-4)."""

    discrepancy: Literal["scalar", "linear"] = "scalar"
    """``scalar`` compares the means over everything, as the reference does; ``linear`` those of
    each channel."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image in two views, in one forward."""
        return "two_views_joint" if self.weight else "plain"
