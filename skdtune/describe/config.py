"""The fully resolved, frozen configuration of one trial.

Everything here is data: no torch, no Optuna. A dotted path such as ``method.dsr.temperature``
names a field, in the search space, in ``--set`` and in error messages alike.

Published settings are those of *Lightweight Self-Knowledge Distillation with Multi-source
Information Fusion* (arXiv 2305.09183) and of its public training recipe.
"""

from __future__ import annotations

import hashlib
import json

from pydantic import Field, model_validator

from skdtune.describe.budget_config import BudgetConfig
from skdtune.describe.data_config import DataConfig
from skdtune.describe.data_facts import facts_of
from skdtune.describe.method_config import MethodConfig
from skdtune.describe.model_config import ModelConfig
from skdtune.describe.optimizer_config import OptimizerConfig
from skdtune.describe.settings import Frozen, canonical
from skdtune.describe.term_config import LabelTermConfig
from skdtune.errors import in_one_line

__all__ = [
    "BudgetConfig",
    "DataConfig",
    "MethodConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TrialConfig",
]


class TrialConfig(Frozen):
    """Everything that decides what one trial trains."""

    of_first_release = True

    data: DataConfig
    """Images, split, augmentation, batches."""

    model: ModelConfig
    """Backbone and arithmetic."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimiser and schedule."""

    budget: BudgetConfig = BudgetConfig()
    """Length of the training."""

    method: MethodConfig = MethodConfig()
    """Loss terms."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of weights, data order and augmentation."""

    @model_validator(mode="after")
    def _parts_fit(self) -> TrialConfig:
        for name, term in self.method.terms().items():
            try:
                term.require_fit(name, self.data, self.model)
            except ValueError:
                raise
            except Exception as error:
                # That of a package: its fault must not look like ours.
                raise ValueError(
                    f"method.{name}: cannot be checked: {type(error).__name__}: "
                    f"{in_one_line(error)}"
                ) from error
            if (mixing := self.data.mixes) and term.why_unmixed:
                called = term.name if isinstance(term, LabelTermConfig) else name
                raise ValueError(
                    f"data.{mixing}: {called} cannot learn from mixed images, {term.why_unmixed}; "
                    f"set data.{mixing} to 0, or take another method"
                )
        shape = facts_of(self.data.name).image_shape or (0, *[self.data.image_size] * 2)
        if min(shape[1:]) < self.model.min_size:
            raise ValueError(
                f"model.name: {self.model.name} takes images of {self.model.min_size} pixels or "
                f"more, those of {self.data.name} have {min(shape[1:])}"
            )
        if self.optimizer.warmup_epochs >= self.budget.epochs:
            raise ValueError(
                f"optimizer.warmup_epochs must be below budget.epochs ({self.budget.epochs}), "
                f"received {self.optimizer.warmup_epochs:g}"
            )
        return self


def config_hash(config: TrialConfig) -> str:
    """Return the hash of a trial's full configuration: 16 hexadecimal digits."""
    text = json.dumps(canonical(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
