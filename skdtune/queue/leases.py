"""The queue: atomically take a waiting trial, prove that one is alive, give it back, reap it.

Every function is one short transaction on the database's own clock. A trial that goes back to
the queue keeps its number, parameters, curve and rung marks; nothing is cloned.

Everybody locks a trial before its lease, so that no two processes wait for each other.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite

from skdtune.errors import LeaseLostError
from skdtune.home import seconds_from_environment
from skdtune.queue.events import EventKind, num_finished_epochs, record
from skdtune.queue.schema import FINISHED, leases, now, own_studies, studies, trials
from skdtune.queue.worker_token import new_token

logger = logging.getLogger(__name__)

#: Seconds without a renewal after which a lease may be reaped.
LEASE_S = 60.0

LEASE_VARIABLE = "SKDTUNE_LEASE_SECONDS"

#: Written out, not bound: only so does either database see that its partial index applies. The
#: comparison is SQLAlchemy's: one that is all text becomes ``(...) = 1`` on SQLite, which then
#: reads every trial of the study.
IS_WAITING = trials.c.state == sa.literal_column("'WAITING'")


@dataclass(frozen=True)
class WorkerIdentity:
    """Who claims. The token alone tells workers apart; host and process are for people."""

    device: str
    token: str = field(default_factory=new_token)
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)

    def __str__(self) -> str:
        """Name the worker for people."""
        return f"{self.host}:{self.pid} ({self.device})"


@dataclass(frozen=True)
class Claim:
    """A trial in the hands of one worker, for one attempt."""

    study_id: int
    trial_id: int
    number: int
    attempt: int
    worker: WorkerIdentity


def lease_seconds() -> float:
    """Return the length of a lease: ``SKDTUNE_LEASE_SECONDS``, else a minute."""
    return seconds_from_environment(LEASE_VARIABLE, LEASE_S, least=0.1)


def claim(
    engine: sa.Engine,
    study_id: int,
    worker: WorkerIdentity,
    lease_s: float = LEASE_S,
    before: Callable[[sa.Connection], None] | None = None,
) -> Claim | None:
    """Take the waiting trial with the lowest number; None if none waits, or the study is paused.

    Args:
        engine: The storage's engine.
        study_id: The study to take a trial of.
        worker: Who takes it.
        lease_s: Seconds of silence after which anybody may give the trial back.
        before: Done in the same transaction if there is a trial; an error takes none.
    """
    with engine.begin() as connection:
        row = connection.execute(_NEXT_WAITING, {"queue_study_id": study_id}).first()
        if row is None:
            return None
        if before is not None:
            before(connection)
        connection.execute(_START, {"next_trial_id": row.trial_id, "started": utc_now()})
        lease = {
            "trial_id": row.trial_id,
            "study_id": study_id,
            "owner": worker.token,
            "host": worker.host,
            "pid": worker.pid,
            "device": worker.device,
            "lease_s": lease_s,
        }
        statement = _taking(connection.dialect.name, now(connection))
        attempt = int(connection.execute(statement, lease).scalar_one())
        claimed = Claim(study_id, row.trial_id, row.number, attempt, worker)
        note(connection, claimed, EventKind.CLAIMED)
        return claimed


# SQLAlchemy takes longer to build these than a database to execute them: built once.
_STUDY_ID = sa.bindparam("queue_study_id", type_=sa.Integer)
_PAUSED = sa.select(own_studies.c.study_id).where(
    own_studies.c.study_id == _STUDY_ID, own_studies.c.paused.is_not(None)
)
_NEXT_WAITING = (
    sa.select(trials.c.trial_id, trials.c.number)
    .where(trials.c.study_id == _STUDY_ID, IS_WAITING, ~_PAUSED.exists())
    .order_by(trials.c.number)
    .limit(1)
    # SQLite has no row locks; there the transaction itself holds the write lock.
    .with_for_update(of=trials, skip_locked=True)
)
_START = (
    sa.update(trials)
    .where(trials.c.trial_id == sa.bindparam("next_trial_id"))
    .values(
        state=TrialState.RUNNING,
        datetime_start=sa.func.coalesce(trials.c.datetime_start, sa.bindparam("started")),
    )
)


def renew(engine: sa.Engine, claimed: Claim) -> bool:
    """Prove that the owner is alive; False if the lease belongs to somebody else by now."""
    with engine.begin() as connection:
        return _renew(connection, claimed)


def read_clock(engine: sa.Engine) -> float:
    """Read the database's clock; that it answers is worth knowing, too."""
    with engine.connect() as connection:
        return float(connection.execute(sa.select(now(connection))).scalar_one())


@contextlib.contextmanager
def owned(engine: sa.Engine, claimed: Claim) -> Iterator[sa.Connection]:
    """Open a transaction that is committed only if the trial still is the claim's.

    The lease is renewed as its last statement: between a look at it and a later write another
    worker could take the trial, or its key could come to belong to another study.

    Raises:
        LeaseLostError: If the trial is somebody else's by now, finished, or gone with its study;
            nothing was written.
    """
    try:
        with engine.begin() as connection:
            yield connection
            if not _renew(connection, claimed):
                raise LeaseLostError("the lease was lost")
    except sa.exc.IntegrityError as error:
        # PostgreSQL refuses rows of a trial that was deleted.
        raise LeaseLostError("the trial was deleted") from error


def release(
    engine: sa.Engine,
    claimed: Claim,
    kind: EventKind = EventKind.PREEMPTED,
    epochs: int | None = None,
    detail: str = "",
) -> bool:
    """Give an unfinished trial back to the queue, in place; False if it was not ours to give.

    Args:
        engine: The storage's engine.
        claimed: The trial in hand.
        kind: Why it is given back.
        epochs: Its finished epochs; default those that are stored.
        detail: A sentence for people.
    """
    with engine.begin() as connection:
        if epochs is None:
            epochs = num_finished_epochs(connection, claimed.trial_id)
        connection.execute(
            sa.select(trials.c.trial_id)
            .where(trials.c.trial_id == claimed.trial_id)
            .with_for_update()
        )
        freed = connection.execute(sa.update(leases).where(*is_held(claimed)).values(owner=None))
        if freed.rowcount != 1:
            return False
        note(connection, claimed, kind, epochs, detail)
        return _requeue(connection, [claimed.trial_id]) == 1


def reap(
    engine: sa.Engine, study_id: int | None = None, by: str = "", at: float | None = None
) -> list[int]:
    """Give trials back whose worker fell silent.

    A sign of life from the future is none: the clock was set back since. Such a lease begins anew
    now, so that whoever lives has all of it to be heard.

    Args:
        engine: The storage's engine.
        study_id: The study to look at; default all that skdtune holds leases of.
        by: Who looks, for the trial's story.
        at: The database's clock, as read a moment ago, by which silence is judged; default now.
            A clock that jumps in between, or a database that freezes, then makes nobody silent.

    Returns:
        The numbers of the trials that wait again.
    """
    study_ids = None if study_id is None else [study_id]
    return sorted(claimed.number for claimed in reap_among(engine, study_ids, by, at))


def reap_among(
    engine: sa.Engine,
    study_ids: Collection[int] | None,
    by: str = "",
    at: float | None = None,
) -> list[Claim]:
    """Do as :func:`reap` for several studies at once, and return the claims that were lost."""
    with engine.begin() as connection:
        clock = now(connection)
        judged_at = clock if at is None else sa.literal(at, sa.Float(53))
        heard_at: sa.ColumnElement[Any] = leases.c.renewed_at
        if connection.dialect.name == "postgresql":
            # Silence while the database was down is not the worker's own. A start from the future
            # says nothing.
            started: sa.ColumnElement[Any] = sa.literal_column(
                "extract(epoch from pg_postmaster_start_time())::float8"
            )
            known_start = sa.case((started <= clock, started), else_=0.0)
            heard_at = sa.func.greatest(heard_at, known_start)
        silent = judged_at - leases.c.lease_s > heard_at
        lost = sa.or_(leases.c.owner.is_(None), silent)
        ahead = leases.c.renewed_at > clock
        of_study = sa.true() if study_ids is None else leases.c.study_id.in_(study_ids)
        numbers = _lock_running(connection, sa.and_(of_study, sa.or_(lost, ahead)))
        _begin_anew(connection, numbers, ahead)
        why = f"its worker fell silent, said {by}" if by else "its worker fell silent"
        freed = _give_back(connection, numbers, lost, why)
        # Leases of trials that were ended from outside, or deleted with their study.
        unfinished = sa.select(trials.c.trial_id).where(
            trials.c.trial_id == leases.c.trial_id,
            trials.c.study_id == leases.c.study_id,
            trials.c.state.in_([TrialState.WAITING, TrialState.RUNNING]),
        )
        connection.execute(sa.delete(leases).where(~unfinished.exists(), of_study))
        return freed


def reap_worker(engine: sa.Engine, study_id: int, token: str) -> list[Claim]:
    """Give back the trials of one worker that is known to be dead, without waiting.

    Args:
        engine: The storage's engine.
        study_id: The study that it worked for.
        token: Its token; host and process number may be those of a living one, too.

    Returns:
        The claims that it lost.
    """
    with engine.begin() as connection:
        held = sa.and_(leases.c.study_id == study_id, leases.c.owner == token)
        numbers = _lock_running(connection, held)
        return _give_back(connection, numbers, held, "its worker died")


def counts(engine: sa.Engine, study_id: int) -> dict[TrialState, int]:
    """Count a study's trials by state."""
    query = (
        sa.select(trials.c.state, sa.func.count())
        # A state that is none belongs to no count.
        .where(trials.c.study_id == study_id, trials.c.state.in_(list(TrialState)))
        .group_by(trials.c.state)
    )
    with engine.connect() as connection:
        numbers = {state: number for state, number in connection.execute(query).all()}
    return {state: numbers.get(state, 0) for state in TrialState}


def finished(engine: sa.Engine, study_id: int, numbers: list[int]) -> list[int]:
    """Return which of a study's trials, by number, have ended."""
    query = sa.select(trials.c.number).where(
        trials.c.study_id == study_id, trials.c.state.in_(FINISHED)
    )
    ended: list[int] = []
    with engine.connect() as connection:
        for start in range(0, len(numbers), 1000):
            chunk = trials.c.number.in_(numbers[start : start + 1000])
            ended.extend(connection.scalars(query.where(chunk)))
    return sorted(ended)


def holders(engine: sa.Engine, study_id: int) -> list[dict[str, Any]]:
    """List the workers that hold a trial of a study, as :func:`holders_of` does."""
    with engine.connect() as connection:
        return holders_of(connection, [study_id])


def holders_of(connection: sa.Connection, study_ids: Collection[int]) -> list[dict[str, Any]]:
    """List the workers that hold a trial of some studies, by study and number.

    Returns:
        Study, number, host, pid, device, attempt, and seconds: of silence, of the lease, since
        the claim. No time is negative, whatever was done to the clock.
    """
    silence = (now(connection) - leases.c.renewed_at).label("silent_s")
    held = (now(connection) - leases.c.claimed_at).label("held_s")
    query = (
        sa.select(
            studies.c.study_name,
            trials.c.number,
            trials.c.trial_id,
            leases.c.host,
            leases.c.pid,
            leases.c.device,
            leases.c.attempt,
            leases.c.lease_s,
            silence,
            held,
        )
        .join(leases, leases.c.trial_id == trials.c.trial_id)
        .join(studies, studies.c.study_id == trials.c.study_id)
        .where(
            leases.c.study_id == trials.c.study_id,
            leases.c.study_id.in_(study_ids),
            leases.c.owner.is_not(None),
            trials.c.state == TrialState.RUNNING,
        )
        .order_by(trials.c.study_id, trials.c.number)
    )
    found = [dict(row._mapping) for row in connection.execute(query)]
    return [
        {**row, "silent_s": max(0.0, row["silent_s"]), "held_s": max(0.0, row["held_s"])}
        for row in found
    ]


def note(
    connection: sa.Connection,
    claimed: Claim,
    kind: EventKind,
    epochs: int = 0,
    detail: str = "",
    final: bool = False,
) -> None:
    """Note what happened to a claimed trial."""
    record(
        connection,
        study_id=claimed.study_id,
        trial_id=claimed.trial_id,
        attempt=claimed.attempt,
        worker=str(claimed.worker),
        kind=kind,
        epochs=epochs,
        detail=detail,
        final=final,
    )


def utc_now() -> datetime:
    """Return the time without its zone, as Optuna's columns are: UTC, for machines in any zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def upsert(dialect: str, table: sa.Table) -> Any:
    """Begin an INSERT that may say what happens on a conflict, in the database's dialect."""
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)


def is_held(claimed: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition on a lease that a claim still holds its trial."""
    return _holds(claimed.trial_id, claimed.study_id, claimed.worker.token, claimed.attempt)


def _holds(
    trial_id: Any, study_id: Any, owner: Any, attempt: Any
) -> tuple[sa.ColumnElement[bool], ...]:
    # A study may have been deleted, and the key of its trial given out again in another one.
    runs = sa.select(trials.c.trial_id).where(
        trials.c.trial_id == trial_id,
        trials.c.study_id == study_id,
        trials.c.state == TrialState.RUNNING,
    )
    return (
        leases.c.trial_id == trial_id,
        leases.c.study_id == study_id,
        leases.c.owner == owner,
        leases.c.attempt == attempt,
        runs.exists(),
    )


def _renew(connection: sa.Connection, claimed: Claim) -> bool:
    held = {
        "held_trial_id": claimed.trial_id,
        "held_study_id": claimed.study_id,
        "held_owner": claimed.worker.token,
        "held_attempt": claimed.attempt,
    }
    return connection.execute(_renewal(now(connection)), held).rowcount == 1


@functools.cache
def _renewal(clock: sa.ColumnElement[Any]) -> sa.Update:
    """Build the statement that every epoch and every heartbeat executes, once."""
    names = ("held_trial_id", "held_study_id", "held_owner", "held_attempt")
    held = _holds(*(sa.bindparam(name) for name in names))
    return sa.update(leases).where(*held).values(renewed_at=clock)


@functools.cache
def _taking(dialect: str, clock: sa.ColumnElement[Any]) -> Any:
    insert = upsert(dialect, leases).values(attempt=1, claimed_at=clock, renewed_at=clock)
    new = insert.excluded
    # A lease that a deleted study left behind counts no attempts of this one.
    again = sa.case((leases.c.study_id == new.study_id, leases.c.attempt + 1), else_=1)
    renewed = {c.name: new[c.name] for c in leases.c if c.name not in ("trial_id", "attempt")}
    return insert.on_conflict_do_update(
        index_elements=["trial_id"], set_={**renewed, "attempt": again}
    ).returning(leases.c.attempt)


def _lock_running(connection: sa.Connection, wanted: sa.ColumnElement[bool]) -> dict[int, int]:
    """Lock the running trials whose leases meet a condition; their numbers, by key."""
    joined = sa.and_(
        leases.c.trial_id == trials.c.trial_id, leases.c.study_id == trials.c.study_id
    )
    query = (
        sa.select(trials.c.trial_id, trials.c.number)
        .join(leases, joined)
        .where(trials.c.state == TrialState.RUNNING, wanted)
        .order_by(trials.c.number)
        .with_for_update(of=trials, skip_locked=True)
    )
    return {row.trial_id: row.number for row in connection.execute(query)}


def _begin_anew(
    connection: sa.Connection, numbers: dict[int, int], ahead: sa.ColumnElement[bool]
) -> None:
    """Let the leases of locked trials begin now that were renewed in the future."""
    if not numbers:
        return
    renewed = connection.execute(
        sa.update(leases)
        .where(leases.c.trial_id.in_(list(numbers)), ahead)
        .values(renewed_at=now(connection))
        .returning(leases.c.trial_id, leases.c.lease_s)
    )
    for row in renewed.all():
        logger.warning(
            "trial %d was heard of in the future: the clock was set back, and its worker has %g s "
            "from now on to be heard",
            numbers[row.trial_id],
            row.lease_s,
        )


def _give_back(
    connection: sa.Connection, numbers: dict[int, int], lost: sa.ColumnElement[bool], why: str
) -> list[Claim]:
    """Give those of some locked trials back whose leases meet a condition."""
    if not numbers:
        return []
    # Looked at again, now that nobody else can take these trials: while this waited for its
    # locks, another process may have given one back, and a third may have taken it.
    freed = connection.execute(
        sa.update(leases)
        .where(leases.c.trial_id.in_(list(numbers)), lost)
        .values(owner=None)
        .returning(*leases.c)
    ).all()
    _requeue(connection, [row.trial_id for row in freed])
    claims = []
    for row in freed:
        worker = WorkerIdentity(device=row.device, token="", host=row.host, pid=row.pid)
        lost_claim = Claim(row.study_id, row.trial_id, numbers[row.trial_id], row.attempt, worker)
        epochs = num_finished_epochs(connection, row.trial_id)
        note(connection, lost_claim, EventKind.LOST, epochs, why)
        claims.append(lost_claim)
    return sorted(claims, key=lambda claimed: claimed.number)


def _requeue(connection: sa.Connection, trial_ids: list[int]) -> int:
    requeued = connection.execute(
        sa.update(trials)
        .where(trials.c.trial_id.in_(trial_ids), trials.c.state == TrialState.RUNNING)
        .values(state=TrialState.WAITING)
    )
    return requeued.rowcount
