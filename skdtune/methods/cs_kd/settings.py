"""Class-wise self-knowledge distillation (CS-KD): its settings."""

from __future__ import annotations

from pydantic import Field

from skdtune.describe.term_config import BatchPlanName, TermConfig


class CsKdConfig(TermConfig):
    """Class-wise self-knowledge distillation: another image of the class is the teacher."""

    of_first_release = True
    term = "skdtune.methods.cs_kd.term:CsKd"
    why_unmixed = "its pairs show one class"

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation term (published: 1, and 3 for fine-grained data)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature (published: 4)."""

    @property
    def batch_plan(self) -> BatchPlanName:
        """Every image with another one of its class."""
        return "class_pairs" if self.weight else "plain"
