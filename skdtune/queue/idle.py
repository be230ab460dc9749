"""A study that nobody trains: asked for before its name changes, or all of it goes."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from skdtune.errors import StudyError
from skdtune.queue.leases import WorkerIdentity, holders_of, reap
from skdtune.queue.schema import studies, trials


def reap_silent(engine: sa.Engine, study_ids: Collection[int]) -> None:
    """Give the trials of dead workers back, which would look like workers that train."""
    for study_id in study_ids:
        reap(engine, study_id)


def lock_idle(connection: sa.Connection, study_ids: Collection[int]) -> None:
    """Keep all trials of some studies from being taken until the transaction ends.

    Raises:
        StudyError: If workers train trials of them.
    """
    # Who claims a trial skips those that are locked; who holds one has its lease by now.
    for table in (studies, trials):
        connection.execute(
            sa.select(table.c.study_id)
            .where(table.c.study_id.in_(study_ids))
            .order_by(*table.primary_key)
            .with_for_update()
        ).all()
    held = holders_of(connection, study_ids)
    if held:
        name = held[0]["study_name"]
        who = [
            str(WorkerIdentity(device=row["device"], token="", host=row["host"], pid=row["pid"]))
            for row in held
            if row["study_name"] == name
        ]
        raise StudyError(
            f"study {name!r} is being trained by {', '.join(who)}: stop the workers first"
        )
