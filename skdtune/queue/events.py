"""What happened to a trial, one row each: claims, interruptions, resumes, its end.

Written in the same transaction as what it tells of, so that the story of a trial is never ahead
of the trial or behind it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from skdtune.queue import schema
from skdtune.queue.checked_values import instant
from skdtune.queue.schema import events, now


class EventKind(StrEnum):
    """What can happen to a trial."""

    CLAIMED = "claimed"
    """A worker took it."""

    RESUMED = "resumed"
    """It goes on from a checkpoint."""

    RESTARTED = "restarted"
    """It starts over: an earlier attempt left no checkpoint that could be used."""

    NOTED = "noted"
    """Something the trial outlived: a damaged checkpoint, a checkpoint that was not written."""

    PREEMPTED = "preempted"
    """Its worker was asked to leave and gave it back."""

    LOST = "lost"
    """Its worker fell silent or died; the trial was given back by somebody else."""

    OOM = "oom"
    """The memory of the device or of the host ran out."""

    NAN = "nan"
    """A training loss became NaN or infinite."""

    TIMEOUT = "timeout"
    """It exceeded the time limit of a trial or of an epoch."""

    ERROR = "error"
    """It raised any other error."""

    SPARED = "spared"
    """The pruner would have stopped it, and it is one that is never pruned; told once."""

    PRUNED = "pruned"
    """It was stopped at a rung."""

    COMPLETE = "complete"
    """It ran to its end."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to a trial."""

    at: float
    """Seconds since 1970 on the database's clock."""

    kind: str
    attempt: int
    final: bool
    """The trial ended with it; else it went on."""

    epochs: int
    """Epochs that were finished by then."""

    worker: str
    """Host, process and device of the worker it happened to."""

    detail: str
    """A sentence for people."""


def record(
    connection: sa.Connection,
    *,
    study_id: int,
    trial_id: int,
    attempt: int,
    worker: str,
    kind: EventKind,
    epochs: int = 0,
    detail: str = "",
    final: bool = False,
) -> None:
    """Note an event, within the transaction that makes it true."""
    row = {
        "study_id": study_id,
        "trial_id": trial_id,
        "attempt": attempt,
        "kind": kind.value,
        "final": final,
        "epochs": epochs,
        "worker": worker[:400],
        # PostgreSQL takes not all that an error message may hold.
        "detail": detail.replace("\0", "").encode("utf-8", "replace").decode("utf-8"),
    }
    connection.execute(_recording(now(connection)), row)


@functools.cache
def _recording(clock: sa.ColumnElement[float]) -> sa.Insert:
    return sa.insert(events).values(at=clock)


def story(engine: sa.Engine, study_id: int, trial_id: int) -> list[Event]:
    """List what happened to a trial, oldest first."""
    columns = (events.c[name] for name in Event.__dataclass_fields__)
    query = (
        sa.select(*columns)
        .where(events.c.trial_id == trial_id, events.c.study_id == study_id)
        .order_by(events.c.event_id)
    )
    with engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
    # A date that cannot be shown must not hide the rest.
    return [Event(**{**row, "at": instant(row["at"])}) for row in rows]


def num_failures(engine: sa.Engine, study_id: int, trial_id: int, kind: EventKind) -> int:
    """Count how often a trial failed in one way.

    Losses are counted since it last made progress: a trial that kills every worker dies at the
    same epoch each time, one on unlucky machines gets further.
    """
    query = sa.select(sa.func.count()).where(
        events.c.trial_id == trial_id, events.c.study_id == study_id, events.c.kind == kind.value
    )
    if kind is EventKind.LOST:
        of_trial = (events.c.trial_id == trial_id, events.c.study_id == study_id)
        furthest = sa.select(sa.func.max(events.c.epochs)).where(*of_trial).scalar_subquery()
        reached = sa.select(sa.func.min(events.c.event_id)).where(
            *of_trial, events.c.epochs == furthest
        )
        query = query.where(events.c.event_id >= reached.scalar_subquery())
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def num_finished_epochs(connection: sa.Connection, trial_id: int) -> int:
    """Count the epochs of a trial that the storage knows."""
    last = connection.scalar(
        sa.select(sa.func.max(schema.steps.c.step)).where(schema.steps.c.trial_id == trial_id)
    )
    return 0 if last is None else int(last) + 1


def record_copies(connection: sa.Connection, study_id: int) -> None:
    """Note of the trials of a copied study that they had ended: their story was not copied.

    Args:
        connection: The transaction in which the study becomes one of ours.
        study_id: Key of the study.
    """
    trials = schema.trials
    ended = sa.select(
        trials.c.study_id,
        trials.c.trial_id,
        sa.literal(0),
        now(connection),
        sa.literal(EventKind.NOTED.value),
        sa.true(),
        sa.literal(0),
        sa.literal(""),
        sa.literal("it had ended when its study was copied"),
    ).where(trials.c.study_id == study_id, trials.c.state.in_(schema.FINISHED))
    columns = ["study_id", "trial_id", "attempt", "at", "kind", "final", "epochs", "worker"]
    connection.execute(sa.insert(events).from_select([*columns, "detail"], ended))
