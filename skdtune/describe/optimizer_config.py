"""Optimiser and schedule of a trial."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from skdtune.describe.settings import Frozen


class OptimizerConfig(Frozen):
    """SGD with momentum and a learning-rate schedule."""

    of_first_release = True

    lr: float = Field(default=0.1, gt=0)
    """Peak learning rate."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""

    nesterov: bool = False
    """Use Nesterov momentum."""

    weight_decay: float = Field(default=5e-4, ge=0)
    """L2 penalty, on all parameters as in the published recipe."""

    schedule: Literal["multistep", "cosine"] = "multistep"
    """``multistep`` multiplies by ``gamma`` at the milestones, ``cosine`` falls to zero."""

    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.3, 0.6, 0.8)
    """Milestones as shares of the planned epochs (60, 120 and 160 of the published 200)."""

    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor at each milestone."""

    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs of linear warm-up from zero, counted step by step."""

    def drop_epochs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs, from 0, that are the first with a lower rate; none under a cosine.

        Args:
            epochs: Planned epochs.
        """
        if self.schedule == "cosine":
            return ()
        # A hair more than the product, because 0.29 * 100 is 28.999...; never before the first
        # epoch has had the peak rate.
        return tuple(max(1, math.floor(share * epochs + 1e-9)) for share in self.milestones)
