from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn

import optuna
import psycopg
import pytest
import sqlalchemy as sa

from skdtune.describe.spec import StudySpec
from skdtune.errors import LeaseLostError, StorageAwayError
from skdtune.queue import leases, patience, schema
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.patience import Patience, is_outage
from skdtune.queue.storage import init_storage
from skdtune.queue.stored_study import create_study, load_study

MARK = "S3cr3t"


@dataclass
class Clock:
    """A clock that only sleeping moves."""

    time: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: found.time))
    return found


def away(text: str = "the server is gone") -> sa.exc.OperationalError:
    return sa.exc.OperationalError("SELECT 1", None, Exception(text))


def fails(error: Exception, times: int = 10**9) -> Callable[[], str]:
    """Return a call that fails so often, then answers."""
    left = iter(range(times))

    def call() -> str:
        if next(left, None) is not None:
            raise error
        return "answer"

    return call


def wrapped(error: Exception) -> Exception:
    """Wrap an error as Optuna's storage does."""
    outer = optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
    outer.__cause__ = error
    return outer


# What waiting may help


def broken_connection() -> sa.exc.DBAPIError:
    return sa.exc.DBAPIError("SELECT", None, Exception("x"), connection_invalidated=True)


OUTAGES = [
    away(),
    away("database is locked"),
    away("disk I/O error"),
    sa.exc.InterfaceError("SELECT", None, Exception("connection already closed")),
    sa.exc.TimeoutError("QueuePool limit of size 2 overflow 2 reached"),
    sa.exc.OperationalError("SELECT", None, psycopg.errors.AdminShutdown("terminating")),
    sa.exc.OperationalError("SELECT", None, psycopg.errors.CannotConnectNow("starting up")),
    sa.exc.OperationalError("SELECT", None, psycopg.errors.TooManyConnections("too many")),
    sa.exc.OperationalError("SELECT", None, psycopg.errors.DiskFull("no space")),
    sa.exc.OperationalError("SELECT", None, psycopg.errors.DeadlockDetected("deadlock")),
    broken_connection(),
]

MISTAKES = [
    away("no such table: trials"),
    away("no such column: trials.x"),
    away('near "SELEC": syntax error'),
    sa.exc.ProgrammingError("SELECT", None, psycopg.errors.UndefinedTable("no table")),
    sa.exc.IntegrityError("INSERT", None, Exception("duplicate key")),
    sa.exc.DataError("INSERT", None, Exception("out of range")),
    sa.exc.ArgumentError("wrong use"),
    optuna.exceptions.StorageInternalError("without a cause"),
    LeaseLostError("the lease was lost"),
    KeyError("name"),
    ValueError("no trial is in hand"),
    AttributeError("a typing error"),
]


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
def test_an_outage_is_one_also_when_optuna_wraps_it(error: Exception) -> None:
    assert is_outage(error)
    assert is_outage(wrapped(error))


@pytest.mark.parametrize("error", MISTAKES, ids=repr)
def test_no_waiting_mends_a_mistake(error: Exception) -> None:
    assert not is_outage(error)
    assert not is_outage(wrapped(error))
    calls: list[float] = []
    with pytest.raises(type(error)):
        Patience(sleep=calls.append)(fails(error))
    assert calls == []


def test_a_real_missing_table_is_a_mistake(any_url: str) -> None:
    storage = init_storage(any_url)
    with storage.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE skdtune_event"))
    with pytest.raises(sa.exc.DBAPIError) as caught, storage.engine.begin() as connection:
        connection.execute(sa.select(schema.events))
    assert not is_outage(caught.value)
    storage.engine.dispose()


# Waiting


def test_a_call_that_is_answered_is_made_once(clock: Clock) -> None:
    calm = Patience(sleep=clock.sleep)
    assert calm(lambda: "answer") == "answer"
    assert (calm.away_s, calm.answers_for_s, calm.is_away) == (0.0, float("inf"), False)
    assert clock.pauses == []


def test_a_call_is_made_until_it_is_answered(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert Patience(sleep=clock.sleep)(fails(away(), times=4)) == "answer"
    assert len(clock.pauses) == 4
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "does not answer, trying again for 1800 s" in caplog.text
    assert "the storage answers again, after" in caplog.text


def test_the_pauses_grow_with_jitter_to_a_few_seconds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jitter: list[tuple[float, float]] = []

    def middle(low: float, high: float) -> float:
        jitter.append((low, high))
        return 1.0

    monkeypatch.setattr(patience.random, "uniform", middle)
    Patience(sleep=clock.sleep)(fails(away(), times=9))
    assert clock.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert set(jitter) == {(0.5, 1.5)}


@pytest.mark.parametrize("outage_s", [0, 60, 1800])
def test_it_gives_up_after_a_long_outage(outage_s: float, clock: Clock) -> None:
    began = clock.time
    patient = Patience(outage_s, sleep=clock.sleep)
    with pytest.raises(StorageAwayError, match="has not answered for"):
        patient(fails(away()))
    assert outage_s <= clock.time - began < outage_s + 7.5
    assert patient.away_s == clock.time - began


def test_an_outage_that_ends_in_time_starts_the_clock_anew(clock: Clock) -> None:
    patient = Patience(60, sleep=clock.sleep)
    for _ in range(5):
        clock.time += 50
        assert patient(fails(away(), times=9)) == "answer"


def test_several_calls_are_of_one_outage(clock: Clock) -> None:
    patient = Patience(60, sleep=clock.sleep)
    with pytest.raises(StorageAwayError):
        patient.once(fails(away()))
    clock.time += 59
    with pytest.raises(StorageAwayError):
        patient.once(fails(away()))
    assert patient.away_s == 59
    clock.time += 1
    with pytest.raises(StorageAwayError, match="has not answered for 60 s"):
        patient(fails(away()))
    assert clock.pauses == []


def test_whoever_must_leave_does_not_wait(clock: Clock) -> None:
    asked: list[bool] = []

    def must_leave() -> bool:
        asked.append(len(asked) >= 2)
        return asked[-1]

    with pytest.raises(StorageAwayError):
        Patience(must_leave=must_leave, sleep=clock.sleep)(fails(away()))
    assert asked == [False, False, True]
    assert len(clock.pauses) == 2


def test_once_is_once(clock: Clock) -> None:
    patient = Patience(sleep=clock.sleep)
    calls: list[int] = []

    def call() -> NoReturn:
        calls.append(1)
        raise away()

    with pytest.raises(StorageAwayError):
        patient.once(call)
    assert (len(calls), clock.pauses) == (1, [])
    assert patient.is_away
    patient.once(lambda: None)
    assert not patient.is_away


def test_after_an_outage_it_is_known_for_how_long_the_storage_answers(clock: Clock) -> None:
    patient = Patience(sleep=clock.sleep)
    with pytest.raises(StorageAwayError):
        patient.once(fails(away()))
    clock.time += 100
    assert patient.answers_for_s == 0
    patient.once(lambda: None)
    assert (patient.away_s, patient.answers_for_s) == (0, 0)
    clock.time += 7
    patient.once(lambda: None)
    assert patient.answers_for_s == 7


def test_a_mistake_ends_no_outage(clock: Clock) -> None:
    patient = Patience(sleep=clock.sleep)
    with pytest.raises(StorageAwayError):
        patient.once(fails(away()))
    clock.time += 3
    with pytest.raises(KeyError):
        patient.once(fails(KeyError("name")))
    assert patient.away_s == 3


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
def test_no_password_is_logged_or_raised(
    wrap: Callable[[Exception], Exception], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    error = sa.exc.OperationalError(
        f"SELECT '{MARK}'", {"p": MARK}, psycopg.OperationalError(f"me:{MARK}@host refused")
    )
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StorageAwayError) as caught:
        Patience(10, sleep=clock.sleep)(fails(wrap(error)))
    assert str(caught.value).startswith("the storage has not answered for ")
    assert str(caught.value).endswith(": OperationalError")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert MARK not in str(caught.value) + caplog.text
    assert len(caplog.records) == 1


# A real one


def test_a_call_outlives_a_server_that_is_stopped_and_started(
    restartable_postgres: Any, make_spec: Callable[..., StudySpec]
) -> None:
    url = restartable_postgres.url
    create_study(make_spec(), storage=url)
    with contextlib.closing(load_study("tiny", storage=url)) as stored:
        claimed = leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"))
        assert claimed is not None
        waits = threading.Event()
        tries: list[float] = []

        def sleep(seconds: float) -> None:
            tries.append(seconds)
            if len(tries) >= 3:
                waits.set()
            threading.Event().wait(seconds)

        patient = Patience(sleep=sleep)
        renewed: list[bool] = []

        def renew() -> None:
            renewed.append(patient(lambda: leases.renew(stored.engine, claimed)))

        restartable_postgres.stop()
        thread = threading.Thread(target=renew)
        thread.start()
        assert waits.wait(120)
        assert patient.away_s > 0
        restartable_postgres.start()
        thread.join(120)
        assert renewed == [True]
        assert (patient.away_s, len(stored.study.get_trials())) == (0, 5)
        assert patient.answers_for_s < float("inf")


def test_a_connection_that_the_server_ends_is_an_outage(postgres_url: str) -> None:
    storage = init_storage(postgres_url)
    admin = sa.create_engine(postgres_url)
    with storage.engine.connect() as connection:
        process = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        with admin.begin() as other:
            other.execute(sa.text(f"SELECT pg_terminate_backend({process})"))
        with pytest.raises(sa.exc.DBAPIError) as caught:
            ask_for_ever(connection)
        assert is_outage(caught.value)
        # The next statement of the same transaction says something else of the same cause.
        with pytest.raises(sa.exc.SQLAlchemyError) as again:
            connection.execute(sa.text("SELECT 1"))
        assert is_outage(again.value)
    admin.dispose()
    storage.engine.dispose()


def ask_for_ever(connection: sa.Connection) -> NoReturn:
    while True:
        connection.execute(sa.text("SELECT 1"))
