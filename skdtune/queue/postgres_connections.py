"""Connections to PostgreSQL, or to a pooler in front of it.

A pooler may give each transaction to another session: nothing of a session is used, no prepared
statements, no start-up options. A server that is frozen keeps no deadline: this process does.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from typing import Any, Self, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg import waiting
from sqlalchemy.engine import URL

from skdtune.queue.deadline import deadline

Asked = TypeVar("Asked")
Result = TypeVar("Result")

_CONNECT_TIMEOUT_S = 10
#: How often a wait looks at the clock and at the signals.
_LOOK_S = 0.1


class NoAnswer(psycopg.OperationalError):
    """The server said nothing until the deadline of the call."""


class PostgresConnections:
    """The connections of one engine to a server.

    Args:
        url: URL of the storage.
    """

    def __init__(self, url: URL) -> None:
        # A server or a firewall may have closed an idle connection during a long epoch: ping
        # first. Two connections are enough for a worker: its own and its heartbeat's.
        pool = {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 2}
        self.arguments = {**pool, "creator": functools.partial(_connect, url)}

    def guard(self, engine: sa.Engine) -> None:
        """Leave the transactions as they are."""


def _connect(url: URL) -> psycopg.Connection[Any]:
    if deadline().has_passed():
        # The ping of a pooled connection has used up the time of the call.
        raise NoAnswer("the server said nothing")
    _, given = url.get_dialect()().create_connect_args(url)
    settings = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "application_name": "skdtune",
        # A server that vanished without a word is noticed in half a minute, not in hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": 30_000,
        **given,
        # They belong to a session, which a pooler changes from one transaction to the next.
        "prepare_threshold": None,
    }
    return _ListeningConnection.connect(**settings)


class _ListeningConnection(psycopg.Connection[Any]):
    """A connection whose calls end with their deadline."""

    @classmethod
    def _connect_gen(cls, *args: Any, **settings: Any) -> Generator[Any, Any, Self]:
        return _listening(super()._connect_gen(*args, **settings))

    def wait(self, gen: Any, *given: Any, **settings: Any) -> Any:
        """Wait until the server has answered; all that psycopg asks it goes this way."""
        interval = {} if given else {"interval": _LOOK_S}
        try:
            return waiting.wait(_listening(gen), self.pgconn.socket, *given, **interval | settings)
        except (NoAnswer, KeyboardInterrupt):
            # What might still come would be taken for the answer to another question. psycopg
            # itself asks the server to cancel the statement, and waits for that.
            self.close()
            raise


def _listening(waiter: Generator[Asked, Any, Result]) -> Generator[Asked, Any, Result]:
    """Wait as psycopg does, and look at the clock whenever nothing has come."""
    limit = deadline()
    limit.listen()
    try:
        asked = next(waiter)
        while True:
            ready = yield asked
            if ready & waiting.READY_R:
                limit.listen()
            elif limit.has_passed():
                raise NoAnswer(f"the server said nothing for {limit.silence_s:g} s")
            asked = waiter.send(ready)
    except StopIteration as end:
        result: Result = end.value
        return result
