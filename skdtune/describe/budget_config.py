"""How long one trial may train."""

from __future__ import annotations

from pydantic import Field, model_validator

from skdtune.describe.settings import Frozen


class BudgetConfig(Frozen):
    """How long one trial may train: epochs, or what they are derived from."""

    of_first_release = True

    epochs: int = Field(default=200, ge=1, le=100_000)
    """Planned epochs; the schedule is scaled to them."""

    images: int | None = Field(default=None, ge=1)
    """Images to train on, all views and companions counted; `create-study` derives the epochs."""

    seconds: float | None = Field(default=None, gt=0)
    """Device seconds to train for; `create-study` measures an epoch and derives the epochs."""

    planned: bool = False
    """The epochs were derived from images or seconds."""

    @property
    def is_open(self) -> bool:
        """The epochs still have to be derived from images or seconds."""
        return not self.planned and (self.images is not None or self.seconds is not None)

    @model_validator(mode="after")
    def _one_measure(self) -> BudgetConfig:
        if self.images is not None and self.seconds is not None:
            raise ValueError("budget: give epochs, or images, or seconds; received two of them")
        if self.planned and self.images is None and self.seconds is None:
            raise ValueError("budget.planned: nothing is given to derive the epochs from")
        return self
