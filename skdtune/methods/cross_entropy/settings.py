"""The label term of the baseline: its settings."""

from __future__ import annotations

from typing import Literal

from skdtune.describe.term_config import LabelTermConfig


class CrossEntropyConfig(LabelTermConfig):
    """The label term of the baseline: plain cross-entropy."""

    of_first_release = True
    term = "skdtune.methods.cross_entropy.term:CrossEntropy"
    why_unmixed = ""

    name: Literal["cross_entropy"] = "cross_entropy"
    """Name of the label term."""
