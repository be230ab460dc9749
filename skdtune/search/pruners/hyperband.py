"""Hyperband, after arXiv 1603.06560: Optuna's, in finished epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from skdtune.search.pruners.halving import HalvingSettings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from skdtune.search.pruners.finished_epochs import EpochHyperbandPruner


class HyperbandConfig(HalvingSettings):
    """Successive halving in several brackets that start at different rungs."""

    of_first_release = True

    name: Literal["hyperband"]
    """Name of the pruner."""

    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        """Return, for each bracket, the finished epochs after which a trial is judged."""
        brackets = []
        start = self.first_rung(epochs)
        while start <= epochs:
            brackets.append(self.rungs(start, epochs))
            start *= self.reduction_factor
        return tuple(brackets)

    def build(self, epochs: int) -> EpochHyperbandPruner:
        """Build Optuna's pruner, in finished epochs."""
        from skdtune.search.pruners.finished_epochs import EpochHyperbandPruner

        return EpochHyperbandPruner(
            min_resource=self.first_rung(epochs),
            max_resource=epochs,
            reduction_factor=self.reduction_factor,
            num_brackets=len(self.brackets(epochs)),
        )

    def bracket_of(self, study: Study, trial: FrozenTrial) -> int:
        """Return the bracket that judges a trial, from 0, as the study's pruner deals them."""
        return cast("EpochHyperbandPruner", study.pruner).bracket(study, trial)
