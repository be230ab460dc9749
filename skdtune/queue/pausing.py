"""A study that is paused: nobody takes a trial of it until somebody has looked at the reason."""

from __future__ import annotations

import sqlalchemy as sa

from skdtune.queue.events import EventKind
from skdtune.queue.schema import events, own_studies


def pause(engine: sa.Engine, study_id: int, reason: str) -> None:
    """Let nobody take a trial; those in hand go on."""
    with engine.begin() as connection:
        _set(connection, study_id, reason)


def resume(engine: sa.Engine, study_id: int) -> bool:
    """Let workers take trials again; False if the study was not paused."""
    with engine.begin() as connection:
        if _reason(connection, study_id) is None:
            return False
        _set(connection, study_id, None)
        return True


def paused_reason(engine: sa.Engine, study_id: int) -> str | None:
    """Return why a study is paused, None if it is not."""
    with engine.connect() as connection:
        return _reason(connection, study_id)


def pause_after_equal_errors(engine: sa.Engine, study_id: int, limit: int) -> bool:
    """Pause a study whose last trials, as many as the limit, failed with the same error.

    Returns:
        True if it is paused now.
    """
    query = (
        sa.select(events.c.kind, events.c.detail)
        .where(events.c.study_id == study_id, events.c.final)
        .order_by(events.c.event_id.desc())
        .limit(limit)
    )
    with engine.begin() as connection:
        last = connection.execute(query).all()
        equal = len(last) == limit and all(
            kind == EventKind.ERROR and _first_line(detail) == _first_line(last[0].detail)
            for kind, detail in last
        )
        if equal:
            trials = "trial" if limit == 1 else f"{limit} trials in a row"
            _set(
                connection,
                study_id,
                f"{trials} failed with the same error: {_first_line(last[0].detail)}",
            )
        return equal


def _first_line(detail: str) -> str:
    return detail.partition("\n")[0]


def _reason(connection: sa.Connection, study_id: int) -> str | None:
    return connection.scalar(
        sa.select(own_studies.c.paused).where(own_studies.c.study_id == study_id)
    )


def _set(connection: sa.Connection, study_id: int, reason: str | None) -> None:
    connection.execute(
        sa.update(own_studies).where(own_studies.c.study_id == study_id).values(paused=reason)
    )
