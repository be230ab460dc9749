"""The label term with smoothed labels: its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from skdtune.describe.term_config import LabelTermConfig


class LabelSmoothingConfig(LabelTermConfig):
    """The label term with smoothed labels."""

    of_first_release = True
    term = "skdtune.methods.label_smoothing.term:LabelSmoothing"
    why_unmixed = ""

    name: Literal["label_smoothing"] = "label_smoothing"
    """Name of the label term."""

    smoothing: float = Field(default=0.1, gt=0, lt=1)
    """Probability moved from the label to the C-1 other classes together."""
