"""The median rule: Optuna's own, in finished epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from skdtune.describe.pruner_settings import PrunerSettings

if TYPE_CHECKING:
    from optuna.pruners import MedianPruner


class MedianConfig(PrunerSettings):
    """Stop a trial whose best value so far is below the median of the completed ones."""

    of_first_release = True
    first_judgement = "warmup_epochs"

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

    def build(self, epochs: int) -> MedianPruner:
        """Build Optuna's pruner."""
        from optuna.pruners import MedianPruner

        # Optuna counts warm-up steps from 0: step n-1 is the end of the n-th epoch.
        return MedianPruner(
            n_startup_trials=self.num_startup_trials,
            n_warmup_steps=self.first_epoch(epochs) - 1,
            interval_steps=self.interval_epochs,
        )
