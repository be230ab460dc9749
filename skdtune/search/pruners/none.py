"""No pruner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from skdtune.describe.pruner_settings import PrunerSettings

if TYPE_CHECKING:
    from optuna.pruners import NopPruner


class NoPruner(PrunerSettings):
    """Every trial runs to its last epoch."""

    of_first_release = True

    name: Literal["none"]
    """Name of the pruner."""

    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        """Return the epochs after which a trial is judged: none."""
        return ((),)

    def build(self, epochs: int) -> NopPruner:
        """Build Optuna's pruner that never prunes."""
        from optuna.pruners import NopPruner

        return NopPruner()
