"""Teacher-free distillation, self-training (TF-KD self): its settings."""

from __future__ import annotations

from pydantic import Field

from skdtune.describe.term_config import TaughtTermConfig


class TfKdSelfConfig(TaughtTermConfig):
    """Teacher-free distillation (self): a trained baseline of the same network teaches."""

    of_first_release = True
    term = "skdtune.methods.tf_kd_self.term:TfKdSelf"
    why_unmixed = ""

    weight: float = Field(default=0.95, ge=0, lt=1)
    """Share of the distillation; the label term gets the rest (published: 0.95)."""

    temperature: float = Field(default=6.0, gt=0)
    """Softmax temperature (published: 6)."""

    multiplier: float | None = Field(default=None, gt=0)
    """Factor of the elementwise mean; default half the classes (published: 50 of 100)."""
