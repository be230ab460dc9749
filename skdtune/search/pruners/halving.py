"""What both forms of successive halving share: their first rung, and the marks they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from skdtune.describe.pruner_settings import PrunerSettings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


class HalvingSettings(PrunerSettings):
    """Keep the best 1/eta of each rung; the next one comes after eta times as many epochs."""

    first_judgement = "min_epochs"

    min_epochs: int | None = Field(default=None, ge=1)
    """First rung; default right after a multistep schedule's first drop, else the epochs over
    eta squared."""

    reduction_factor: int = Field(default=3, ge=2)
    """Eta: one trial in so many passes a rung."""

    def first_rung(self, epochs: int) -> int:
        """Return the number of finished epochs at the first rung."""
        return self.min_epochs or -(-epochs // self.reduction_factor**2)

    def rungs(self, first: int, epochs: int) -> tuple[int, ...]:
        """Return the rungs of a bracket, in finished epochs.

        Args:
            first: The first of them.
            epochs: Planned epochs of a trial.
        """
        rungs = []
        while first < epochs:
            rungs.append(first)
            first *= self.reduction_factor
        return tuple(rungs)

    def bracket_of(self, study: Study, trial: FrozenTrial) -> int:
        """Return the bracket that judges a trial, from 0: there is only one."""
        return 0

    def rung_marks_beyond(
        self, study: Study, trial: FrozenTrial, epochs: int, num_finished: int
    ) -> list[str]:
        """Name the marks of Optuna's successive halving that lie beyond an epoch."""
        first = self.first_rung(epochs) * self.reduction_factor ** self.bracket_of(study, trial)
        marks = []
        index = 0
        while (mark := f"completed_rung_{index}") in trial.system_attrs:
            if first * self.reduction_factor**index > num_finished:
                marks.append(mark)
            index += 1
        return marks
