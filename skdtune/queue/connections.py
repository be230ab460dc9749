"""How an engine connects to a storage, so that no call waits for ever."""

from __future__ import annotations

from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import URL


class Connections(Protocol):
    """The connections of one engine."""

    arguments: dict[str, Any]
    """What the engine is created with, beside its URL."""

    def guard(self, engine: sa.Engine) -> None:
        """Make the transactions of the engine safe."""


def connections_to(url: URL) -> Connections:
    """Return how an engine connects to a storage."""
    # The driver of the one takes a while to import, and the other has no use for it.
    if url.get_backend_name() == "sqlite":
        from skdtune.queue.sqlite_connections import SqliteConnections

        return SqliteConnections(url)
    from skdtune.queue.postgres_connections import PostgresConnections

    return PostgresConnections(url)
