"""What the settings of every pruner have in common: when it judges a trial, and what builds it.

The rungs are known without Optuna, so that they can be printed before a study exists, and so that
the trial loop asks the pruner at exactly these epochs and at no other.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from skdtune.describe.settings import Frozen


class PrunerSettings(Frozen):
    """Base of the settings of a pruner; each has a field ``name``, the one of the catalogue."""

    if TYPE_CHECKING:
        # Every pruner writes it out itself: it is what tells one's settings from another's.
        name: str

    first_judgement: ClassVar[str | None] = None
    """Field with the finished epochs at the first judgement, which a study fills in where it is
    None and the schedule tells a better one; None for a pruner that has no such field."""

    @abstractmethod
    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        """Return, for each bracket, the finished epochs after which a trial is judged.

        Args:
            epochs: Planned epochs of a trial; all rungs lie below.
        """

    @abstractmethod
    def build(self, epochs: int) -> Any:
        """Return the ``optuna.pruners.BasePruner``; it judges right exactly at the rungs.

        Optuna counts steps from 0: step n-1 is the end of the n-th epoch.

        Args:
            epochs: Planned epochs of a trial.
        """

    def rung_marks_beyond(
        self, study: Any, trial: Any, epochs: int, num_finished: int
    ) -> list[str]:
        """Name the marks that the pruner left on a trial beyond an epoch; most leave none.

        A trial that goes back to its last checkpoint is judged again at the rungs after it, and
        must not be compared with what it had reached before.

        Args:
            study: The ``optuna.Study`` with the pruner that was built.
            trial: The ``optuna.trial.FrozenTrial`` with its system attributes.
            epochs: Planned epochs of a trial.
            num_finished: Finished epochs that the trial goes back to.
        """
        return []

    def judged_epochs(self, epochs: int) -> frozenset[int]:
        """Return every number of finished epochs at which some bracket judges a trial."""
        return frozenset(epoch for bracket in self.brackets(epochs) for epoch in bracket)
