"""When a pruner judges a trial: the rung table, in finished epochs.

Kept apart from Optuna so that it can be printed before a study exists, and so that the trial
loop asks the pruner at exactly these epochs and at no other.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from skdtune.describe.settings import Frozen


class NoPruner(Frozen):
    """Every trial runs to its last epoch."""

    of_first_release = True

    name: Literal["none"]
    """Name of the pruner."""

    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        """Return the epochs after which a trial is judged: none."""
        return ((),)


class MedianConfig(Frozen):
    """Stop a trial whose best value so far is below the median of the completed ones."""

    of_first_release = True

    name: Literal["median"] = "median"
    """Name of the pruner."""

    num_startup_trials: int = Field(default=5, ge=1)
    """Completed trials before anything is pruned."""

    warmup_epochs: int | None = Field(default=None, ge=1)
    """First epoch that is judged; default right after a multistep schedule's first drop, else
    half of the epochs: earlier ones rank badly."""

    interval_epochs: int = Field(default=1, ge=1)
    """Epochs between two judgements."""

    def first_epoch(self, epochs: int) -> int:
        """Return the number of finished epochs at the first judgement."""
        return self.warmup_epochs or max(1, epochs // 2)

    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        """Return the finished epochs after which a trial is judged, in one bracket."""
        return (tuple(range(self.first_epoch(epochs), epochs, self.interval_epochs)),)


class _HalvingConfig(Frozen):
    """What both forms of successive halving share."""

    min_epochs: int | None = Field(default=None, ge=1)
    """First rung; default right after a multistep schedule's first drop, else the epochs over
    eta squared."""

    reduction_factor: int = Field(default=3, ge=2)
    """Eta: one trial in so many passes a rung."""

    def first_rung(self, epochs: int) -> int:
        """Return the number of finished epochs at the first rung."""
        return self.min_epochs or -(-epochs // self.reduction_factor**2)


class AshaConfig(_HalvingConfig):
    """Asynchronous successive halving: keep the best 1/eta of each rung, judged on arrival."""

    of_first_release = True

    name: Literal["asha"]
    """Name of the pruner."""

    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        """Return the finished epochs after which a trial is judged, in one bracket."""
        return (_rungs(self.first_rung(epochs), self.reduction_factor, epochs),)


class HyperbandConfig(_HalvingConfig):
    """Successive halving in several brackets that start at different rungs."""

    of_first_release = True

    name: Literal["hyperband"]
    """Name of the pruner."""

    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        """Return, for each bracket, the finished epochs after which a trial is judged."""
        brackets = []
        start = self.first_rung(epochs)
        while start <= epochs:
            brackets.append(_rungs(start, self.reduction_factor, epochs))
            start *= self.reduction_factor
        return tuple(brackets)


def _rungs(first: int, eta: int, epochs: int) -> tuple[int, ...]:
    rungs = []
    while first < epochs:
        rungs.append(first)
        first *= eta
    return tuple(rungs)


PrunerConfig = Annotated[
    NoPruner | MedianConfig | AshaConfig | HyperbandConfig, Field(discriminator="name")
]


def judged_epochs(pruner: PrunerConfig, epochs: int) -> frozenset[int]:
    """Return every number of finished epochs at which some bracket judges a trial."""
    return frozenset(epoch for bracket in pruner.brackets(epochs) for epoch in bracket)
