"""What is left to do in each of several studies, for who takes trials of all of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.queue.leases import IS_WAITING
from skdtune.queue.schema import leases, own_studies, studies, trials


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left to do in one study."""

    name: str
    """What it is called now."""

    lineage: str
    """Token of its creation."""

    paused: str | None
    """Why nobody takes a trial of it; None while they may."""

    waiting: int
    """Trials that wait for a worker."""

    held: int
    """Trials that workers have in hand."""

    @property
    def is_finished(self) -> bool:
        """No trial can come back to the queue any more."""
        return not self.waiting and not self.held


def read_work(engine: sa.Engine, study_ids: Collection[int]) -> dict[int, Work]:
    """Read what is left to do in some studies, in three small queries.

    Returns:
        By the study's key; a study that was deleted is not among them.
    """
    named = (
        sa.select(
            studies.c.study_id, studies.c.study_name, own_studies.c.lineage, own_studies.c.paused
        )
        .join(own_studies, own_studies.c.study_id == studies.c.study_id)
        .where(studies.c.study_id.in_(study_ids))
    )
    waiting = (
        sa.select(trials.c.study_id, sa.func.count())
        .where(trials.c.study_id.in_(study_ids), IS_WAITING)
        .group_by(trials.c.study_id)
    )
    held = (
        sa.select(trials.c.study_id, sa.func.count())
        .join(leases, leases.c.trial_id == trials.c.trial_id)
        .where(
            leases.c.study_id == trials.c.study_id,
            leases.c.study_id.in_(study_ids),
            leases.c.owner.is_not(None),
            trials.c.state == TrialState.RUNNING,
        )
        .group_by(trials.c.study_id)
    )
    with engine.connect() as connection:
        # Those in hand first: a trial that goes back in between is seen twice, and not never.
        num_held = {study_id: number for study_id, number in connection.execute(held).all()}
        num_waiting = {study_id: number for study_id, number in connection.execute(waiting).all()}
        rows = connection.execute(named).all()
    return {
        row.study_id: Work(
            name=row.study_name,
            lineage=row.lineage,
            paused=row.paused,
            waiting=num_waiting.get(row.study_id, 0),
            held=num_held.get(row.study_id, 0),
        )
        for row in rows
    }
