"""Which trial is the best: the complete one of the highest value; the lower number wins a tie.

A foreign one is none.

The rule stands here twice, side by side: over trials that were read, and in SQL where reading all
of them would take too long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from skdtune.queue import schema
from skdtune.queue.foreign_trials import IS_FOREIGN

_FINITE = models.TrialValueModel.TrialValueType.FINITE


class Valued(Protocol):
    """A trial, as Optuna or a view of it has it."""

    @property
    def number(self) -> int:
        """Number of the trial."""

    @property
    def value(self) -> float | None:
        """Its objective."""


Trial = TypeVar("Trial", bound=Valued)


def best_first(complete: Iterable[Trial]) -> list[Trial]:
    """Sort complete trials, the best first; one without a value is none.

    Args:
        complete: Complete trials, in any order.
    """
    valued = [(trial.value, trial) for trial in complete if trial.value is not None]
    return [trial for _, trial in sorted(valued, key=lambda pair: (-pair[0], pair[1].number))]


def best_so_far(connection: sa.Connection, study_id: int) -> tuple[int, float] | None:
    """Return number and value of the best trial of a study, None before one is complete."""
    trials, values = schema.trials, schema.values
    query = (
        sa.select(trials.c.number, values.c.value)
        .join(values, values.c.trial_id == trials.c.trial_id)
        .where(
            trials.c.study_id == study_id,
            trials.c.state == TrialState.COMPLETE,
            values.c.value.between(0, 1),
            values.c.value_type == _FINITE,
            ~IS_FOREIGN,
        )
        .order_by(values.c.value.desc(), trials.c.number)
        .limit(1)
    )
    row = connection.execute(query).first()
    return (row[0], row[1]) if row else None
