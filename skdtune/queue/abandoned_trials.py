"""Trials that somebody asked plain Optuna for and never told of: given back to the queue.

They have no lease, so that nobody can know whether their owner lives: a person decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.queue import schema
from skdtune.queue.events import EventKind, record
from skdtune.queue.foreign_trials import IS_FOREIGN
from skdtune.queue.schema import events, studies, trials
from skdtune.queue.trial_attributes import QUEUED_PARAMS


@dataclass(frozen=True)
class AbandonedTrial:
    """A trial that runs, and no worker of skdtune has it."""

    study: str
    number: int
    study_id: int
    trial_id: int


_ABANDONED = (
    sa.select(studies.c.study_name, trials.c.number, trials.c.study_id, trials.c.trial_id)
    .join(studies, studies.c.study_id == trials.c.study_id)
    .where(trials.c.state == TrialState.RUNNING, IS_FOREIGN)
    .order_by(studies.c.study_name, trials.c.number)
)


def find_abandoned(engine: sa.Engine) -> list[AbandonedTrial]:
    """List the trials of skdtune's studies that run without a lease, by study and number."""
    with engine.connect() as connection:
        return [AbandonedTrial(*row) for row in connection.execute(_ABANDONED)]


def give_back_abandoned(
    engine: sa.Engine, found: Sequence[AbandonedTrial]
) -> list[AbandonedTrial]:
    """Let trials wait again that run without a lease; one transaction.

    One that no worker ever began waits as it was made: with what was queued with it, and nothing
    that somebody else left on it. One that a worker gave back keeps what the worker had.

    Args:
        engine: The storage's engine.
        found: Those that a person was shown.

    Returns:
        Those of them that ran still, and wait now.
    """
    ids = [trial.trial_id for trial in found]
    with engine.begin() as connection:
        locked = _ABANDONED.where(trials.c.trial_id.in_(ids)).with_for_update(of=trials)
        lost = [AbandonedTrial(*row) for row in connection.execute(locked)]
        for trial in lost:
            _blank(connection, trial)
            record(
                connection,
                study_id=trial.study_id,
                trial_id=trial.trial_id,
                attempt=0,
                worker="",
                kind=EventKind.NOTED,
                detail="given back: it was asked for by plain Optuna, and nobody told its end",
            )
        connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id.in_([trial.trial_id for trial in lost]))
            .values(state=TrialState.WAITING)
        )
    return lost


def _blank(connection: sa.Connection, trial: AbandonedTrial) -> None:
    """Remove what was left on a trial that no worker began."""
    key = trial.trial_id
    claimed = sa.select(events.c.event_id).where(
        events.c.trial_id == key,
        events.c.study_id == trial.study_id,
        events.c.kind == EventKind.CLAIMED.value,
    )
    if connection.scalar(claimed.limit(1)) is not None:
        return
    for table in (schema.params, schema.steps, schema.values, schema.trial_user_attributes):
        connection.execute(sa.delete(table).where(table.c.trial_id == key))
    system = schema.trial_system_attributes
    connection.execute(
        sa.delete(system).where(system.c.trial_id == key, system.c.key != QUEUED_PARAMS)
    )
    connection.execute(
        sa.update(trials).where(trials.c.trial_id == key).values(datetime_start=None)
    )
