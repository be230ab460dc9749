"""Distillation with shape-wise regularization (DSR): its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skdtune.describe.term_config import TermConfig
from skdtune.describe.training_length import TrainingLength


class DsrConfig(TermConfig):
    """Distillation with shape-wise regularization: ranked outputs follow the batch before."""

    of_first_release = True
    term = "skdtune.methods.dsr.term:Dsr"
    why_unmixed = ""

    weight: float = Field(default=1.0, ge=0)
    """Weight of the distillation term (published: 1)."""

    temperature: float = Field(default=4.0, gt=0)
    """Softmax temperature, DSR's own (published: 4)."""

    pairing: Literal["row", "batch_mean"] = "row"
    """Target of row i: row i of the batch before (published), or its mean profile."""

    def require_length(self, name: str, length: TrainingLength) -> None:
        """Refuse epochs of one batch: each begins without a batch before."""
        if self.weight and length.steps < 2:
            raise ValueError(
                f"method.{name}: compares each batch of an epoch with the one before it, and "
                f"{length.too_few_images}"
            )
