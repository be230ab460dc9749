"""How a storage is to work with from here: its server, its distance, its clock, its limits."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage

from skdtune.queue.schema import now

_NUM_PINGS = 5


@dataclass(frozen=True, kw_only=True)
class StorageFacts:
    """What was measured and asked."""

    server: str
    """Name and version."""

    latency_ms: float
    """Median time of a statement, there and back."""

    clock_ahead_s: float
    """Seconds that the database's clock is ahead of this machine's."""

    has_pooler: bool = False
    """Something between here and the server hands its connections out."""

    num_connections: int = 0
    """Connections that the server has; 0 where that means nothing."""

    max_connections: int = 0
    may_create: bool = True
    """This user may make tables."""


def storage_facts(storage: RDBStorage) -> StorageFacts:
    """Measure and ask; nothing is written."""
    with storage.engine.connect() as connection:
        connection.execute(sa.select(1))
        laps = [_lap(connection) for _ in range(_NUM_PINGS)]
        before = time.time()
        clock = float(connection.execute(sa.select(now(connection))).scalar_one())
        ahead_s = clock - (before + time.time()) / 2
        measured: dict[str, Any] = {
            "latency_ms": 1000 * statistics.median(laps),
            "clock_ahead_s": ahead_s,
        }
        if connection.dialect.name == "sqlite":
            version = connection.execute(sa.select(sa.func.sqlite_version())).scalar_one()
            return StorageFacts(server=f"SQLite {version}", **measured)
        version, backend, used, allowed, may_create = connection.execute(
            sa.text(
                "SELECT current_setting('server_version'), pg_backend_pid(), "
                "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
                "current_setting('max_connections')::int, "
                "has_schema_privilege(current_schema(), 'CREATE')"
            )
        ).one()
        # A pooler names a process of its own when it lets a client in, not the server's.
        info = getattr(connection.connection.dbapi_connection, "info", None)
        return StorageFacts(
            server=f"PostgreSQL {str(version).partition(' ')[0]}",
            has_pooler=getattr(info, "backend_pid", backend) != backend,
            num_connections=int(used),
            max_connections=int(allowed),
            may_create=bool(may_create),
            **measured,
        )


def _lap(connection: sa.Connection) -> float:
    started = time.perf_counter()
    connection.execute(sa.select(1))
    return time.perf_counter() - started
