"""Asynchronous successive halving (ASHA), after arXiv 1810.05934: Optuna's, in finished epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from skdtune.search.pruners.halving import HalvingSettings

if TYPE_CHECKING:
    from skdtune.search.pruners.finished_epochs import AshaPruner


class AshaConfig(HalvingSettings):
    """Asynchronous successive halving: keep the best 1/eta of each rung, judged on arrival."""

    of_first_release = True

    name: Literal["asha"]
    """Name of the pruner."""

    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        """Return the finished epochs after which a trial is judged, in one bracket."""
        return (self.rungs(self.first_rung(epochs), epochs),)

    def build(self, epochs: int) -> AshaPruner:
        """Build Optuna's pruner, in finished epochs."""
        from skdtune.search.pruners.finished_epochs import AshaPruner

        return AshaPruner(
            min_resource=self.first_rung(epochs), reduction_factor=self.reduction_factor
        )
