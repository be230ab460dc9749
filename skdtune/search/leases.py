"""The queue: atomically take a waiting trial, prove that one is alive, give it back, reap it.

Every function is one short transaction on the database's own clock. A trial that goes back to
the queue keeps its number, parameters and curve; nothing is cloned.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.errors import LeaseLostError
from skdtune.search.schema import leases, now, steps, trial_system_attributes, trials

#: Seconds without a renewal after which a lease may be reaped.
LEASE_S = 60.0


@dataclass(frozen=True)
class WorkerIdentity:
    """Who claims: a process on a host, with a token nobody else has."""

    device: str
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)


@dataclass(frozen=True)
class Claim:
    """A trial in the hands of one worker."""

    trial_id: int
    number: int
    attempt: int


def claim(engine: sa.Engine, study_id: int, worker: WorkerIdentity) -> Claim | None:
    """Take the waiting trial with the lowest number; None if none is waiting."""
    query = (
        sa.select(trials.c.trial_id, trials.c.number)
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.WAITING)
        .order_by(trials.c.number)
        .limit(1)
        # SQLite has no row locks; there the transaction itself holds the write lock.
        .with_for_update(skip_locked=True)
    )
    with engine.begin() as connection:
        row = connection.execute(query).first()
        if row is None:
            return None
        connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id == row.trial_id)
            .values(state=TrialState.RUNNING, datetime_start=_utc_now())
        )
        attempt = _write_lease(connection, study_id, row.trial_id, worker)
        return Claim(row.trial_id, row.number, attempt)


def renew(engine: sa.Engine, trial_id: int, token: str) -> bool:
    """Prove that the owner is alive; False if the lease belongs to somebody else by now."""
    with engine.begin() as connection:
        renewed = connection.execute(
            sa.update(leases).where(*_held(trial_id, token)).values(renewed_at=now(connection))
        )
        return renewed.rowcount == 1


@contextlib.contextmanager
def fenced(engine: sa.Engine, trial_id: int, token: str) -> Iterator[None]:
    """Let this thread commit nothing to the storage unless the trial is still its own.

    The lease is looked at inside each transaction, under a lock: between a look and a later write
    another worker could take the trial, or its key could come to belong to another study.

    Raises:
        LeaseLostError: From any transaction of this thread, which is then rolled back.
    """
    thread = threading.get_ident()

    def require_lease(connection: sa.Connection) -> None:
        if threading.get_ident() == thread and not _is_held(connection, trial_id, token):
            raise LeaseLostError("the lease was lost")

    sa.event.listen(engine, "commit", require_lease)
    try:
        yield
    finally:
        sa.event.remove(engine, "commit", require_lease)


def release(engine: sa.Engine, trial_id: int, token: str) -> bool:
    """Give an unfinished trial back to the queue, in place; False if it was not ours to give."""
    with engine.begin() as connection:
        # Trial before lease, as everybody locks them: else two processes wait for each other.
        connection.execute(
            sa.select(trials.c.trial_id).where(trials.c.trial_id == trial_id).with_for_update()
        )
        freed = connection.execute(
            sa.update(leases).where(*_held(trial_id, token)).values(owner=None)
        )
        if freed.rowcount != 1:
            return False
        return _requeue(connection, [trial_id]) == 1


def drop(engine: sa.Engine, trial_id: int, token: str) -> None:
    """Remove the lease of a finished trial."""
    with engine.begin() as connection:
        connection.execute(sa.delete(leases).where(*_held(trial_id, token)))


def reap(engine: sa.Engine, study_id: int | None = None, lease_s: float = LEASE_S) -> list[int]:
    """Give trials back whose worker fell silent.

    Args:
        engine: The storage's engine.
        study_id: The study to look at; default all that skdtune holds leases of.
        lease_s: Seconds without a renewal that count as silence.

    Returns:
        The numbers of the trials that wait again.
    """
    with engine.begin() as connection:
        oldest = now(connection) - lease_s
        query = _running().where(sa.or_(leases.c.owner.is_(None), leases.c.renewed_at < oldest))
        if study_id is not None:
            query = query.where(leases.c.study_id == study_id)
        numbers = _give_back(connection, query)
        _drop_finished(connection, study_id)
        return numbers


def reap_worker(engine: sa.Engine, study_id: int, host: str, pid: int) -> list[int]:
    """Give back the trials of one process that is known to be dead, without waiting."""
    with engine.begin() as connection:
        query = _running().where(
            leases.c.study_id == study_id, leases.c.host == host, leases.c.pid == pid
        )
        return _give_back(connection, query)


def forget_curve(engine: sa.Engine, trial_id: int) -> None:
    """Remove what an earlier attempt reported: the trial starts over from its first epoch."""
    rungs = trial_system_attributes.c.key.like("completed_rung_%")
    with engine.begin() as connection:
        connection.execute(sa.delete(steps).where(steps.c.trial_id == trial_id))
        connection.execute(
            sa.delete(trial_system_attributes).where(
                trial_system_attributes.c.trial_id == trial_id, rungs
            )
        )


def counts(engine: sa.Engine, study_id: int) -> dict[TrialState, int]:
    """Count a study's trials by state."""
    query = (
        sa.select(trials.c.state, sa.func.count())
        .where(trials.c.study_id == study_id)
        .group_by(trials.c.state)
    )
    with engine.connect() as connection:
        found = {state: number for state, number in connection.execute(query).all()}
    return {state: found.get(state, 0) for state in TrialState}


def holders(engine: sa.Engine, study_id: int) -> list[dict[str, Any]]:
    """List the workers that hold a trial: number, host, pid, device, attempt, silent seconds."""
    with engine.connect() as connection:
        silence = (now(connection) - leases.c.renewed_at).label("silent_s")
        held = (now(connection) - leases.c.claimed_at).label("held_s")
        query = (
            sa.select(
                trials.c.number,
                trials.c.trial_id,
                leases.c.host,
                leases.c.pid,
                leases.c.device,
                leases.c.attempt,
                silence,
                held,
            )
            .join(leases, leases.c.trial_id == trials.c.trial_id)
            .where(
                leases.c.study_id == study_id,
                leases.c.owner.is_not(None),
                trials.c.state == TrialState.RUNNING,
            )
            .order_by(trials.c.number)
        )
        return [dict(row._mapping) for row in connection.execute(query)]


def _held(trial_id: int, token: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (leases.c.trial_id == trial_id, leases.c.owner == token)


def _is_held(connection: sa.Connection, trial_id: int, token: str) -> bool:
    # A study may have been deleted, and the key of its trial given out again in another one.
    same = sa.and_(trials.c.trial_id == leases.c.trial_id, trials.c.study_id == leases.c.study_id)
    query = (
        sa.select(leases.c.trial_id)
        .join(trials, same)
        .where(*_held(trial_id, token))
        .with_for_update(read=True, of=leases)
    )
    return connection.execute(query).first() is not None


def _write_lease(
    connection: sa.Connection, study_id: int, trial_id: int, worker: WorkerIdentity
) -> int:
    clock = now(connection)
    held = {
        "study_id": study_id,
        "owner": worker.token,
        "host": worker.host,
        "pid": worker.pid,
        "device": worker.device,
        "claimed_at": clock,
        "renewed_at": clock,
    }
    there = leases.c.trial_id == trial_id
    known = connection.execute(sa.select(leases.c.attempt, leases.c.study_id).where(there)).first()
    attempt = known.attempt + 1 if known is not None and known.study_id == study_id else 1
    if known is None:
        new = {"trial_id": trial_id, "attempt": attempt, **held}
        connection.execute(sa.insert(leases).values(new))
    else:
        connection.execute(sa.update(leases).where(there).values(attempt=attempt, **held))
    return attempt


def _running() -> sa.Select[int, int]:
    return (
        sa.select(trials.c.trial_id, trials.c.number)
        .join(leases, leases.c.trial_id == trials.c.trial_id)
        .where(trials.c.state == TrialState.RUNNING)
        .with_for_update(of=trials, skip_locked=True)
    )


def _give_back(connection: sa.Connection, query: sa.Select[int, int]) -> list[int]:
    rows = connection.execute(query).all()
    ids = [row.trial_id for row in rows]
    connection.execute(sa.update(leases).where(leases.c.trial_id.in_(ids)).values(owner=None))
    _requeue(connection, ids)
    return [row.number for row in rows]


def _requeue(connection: sa.Connection, trial_ids: list[int]) -> int:
    requeued = connection.execute(
        sa.update(trials)
        .where(trials.c.trial_id.in_(trial_ids), trials.c.state == TrialState.RUNNING)
        .values(state=TrialState.WAITING)
    )
    return requeued.rowcount


def _drop_finished(connection: sa.Connection, study_id: int | None) -> None:
    """Remove leases of trials that are finished, or deleted with their study."""
    unfinished = sa.select(trials.c.trial_id).where(
        trials.c.state.in_([TrialState.WAITING, TrialState.RUNNING])
    )
    statement = sa.delete(leases).where(leases.c.trial_id.not_in(unfinished))
    if study_id is not None:
        statement = statement.where(leases.c.study_id == study_id)
    connection.execute(statement)


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
