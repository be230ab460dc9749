"""Teacher-free distillation, regularization (TF-KD reg): its settings."""

from __future__ import annotations

from pydantic import Field

from skdtune.describe.term_config import TermConfig


class TfKdRegConfig(TermConfig):
    """Teacher-free distillation (regularization): a nearly uniform target, made by hand."""

    of_first_release = True
    term = "skdtune.methods.tf_kd_reg.term:TfKdReg"
    why_unmixed = "its teacher knows one label"

    weight: float = Field(default=0.1, ge=0, lt=1)
    """Share of the distillation; the label term gets the rest (published: 0.1)."""

    correct_prob: float = Field(default=0.99, gt=0, lt=1)
    """Probability of the label before the target is softened (published: 0.99)."""

    temperature: float = Field(default=20.0, gt=0)
    """Temperature that softens those probabilities (published: 20; next to no influence)."""

    multiplier: float | None = Field(default=None, gt=0)
    """Factor of the elementwise mean; default the number of classes (published: 100 of 100)."""
