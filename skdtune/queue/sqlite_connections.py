"""Connections to an SQLite file, made safe for several processes of one machine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL

from skdtune.errors import StorageError, StorageLostError
from skdtune.queue.deadline import deadline

#: Milliseconds of one try for a lock. SQLite waits deaf to signals: the long wait is here.
_TRY_MS = 200
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: What SQLite says in a read-only folder when the last writer has taken `-wal` and `-shm` away.
_NOTHING_TO_SHARE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


class SqliteConnections:
    """Connections to one file, and to no other that comes to have its name.

    Args:
        url: URL of the storage.
    """

    def __init__(self, url: URL) -> None:
        given, self._settings = url.get_dialect()().create_connect_args(url)
        self._name = str(given[0])
        self._path = sqlite_file(url)
        self._identity: tuple[int, int] | None = None
        self._at_rest: tuple[int, int] | None = None
        self.arguments: dict[str, Any] = {"creator": self._connect}

    def guard(self, engine: sa.Engine) -> None:
        """Take the write lock at the start of each transaction; readers go on meanwhile.

        SQLite ignores ``FOR UPDATE``: without this, two workers read the same waiting trial and
        both take it (measured: 15 of 60 trials).
        """

        def on_begin(connection: sa.Connection) -> None:
            self._require_same()
            _until_unlocked(lambda: connection.exec_driver_sql("BEGIN IMMEDIATE"))

        sa.event.listen(engine, "begin", on_begin)

    def _connect(self) -> sqlite3.Connection:
        # Before it is opened: a file that is gone would be made anew, empty.
        self._require_same()
        named = "uri" in self._settings or not self._path.exists() or _may_write(self._path)
        opened = self._open_as_named() if named else self._open_to_read()
        found = self._path.stat()
        self._identity = self._identity or (found.st_dev, found.st_ino)
        return opened

    def _require_same(self) -> None:
        """Refuse a file that was deleted or replaced: what is written to it is lost."""
        if self._identity is None:
            return
        try:
            found = self._path.stat()
        except OSError:
            what = "is gone"
        else:
            if (found.st_dev, found.st_ino) == self._identity:
                self._require_rest()
                return
            what = "is another one now"
        raise StorageLostError(
            f"the file of the storage, {self._path}, {what}: it was deleted or replaced while in "
            "use; put it back and start again, checkpoints are kept"
        )

    def _open_as_named(self) -> sqlite3.Connection:
        opened = self._open(self._name, **self._settings)
        if "mode=ro" not in self._name:
            _until_unlocked(lambda: opened.execute("PRAGMA journal_mode=WAL"))
            opened.execute("PRAGMA synchronous=NORMAL")
        return opened

    def _open_to_read(self) -> sqlite3.Connection:
        """Open a file that this process cannot write, or beside which it cannot make others."""
        settings = {**self._settings, "uri": True}
        uri = f"file:{quote(str(self._path))}?mode=ro"
        opened = self._open(uri, **settings)
        try:
            opened.execute("SELECT 1 FROM sqlite_master").fetchone()
            return opened
        except sqlite3.OperationalError as error:
            opened.close()
            if error.sqlite_errorcode & 0xFF not in _NOTHING_TO_SHARE:
                raise
        # Whoever writes it keeps files beside it, through which it can be read. So nobody does,
        # and it is read as one that does not change; each transaction looks whether that is so.
        self._at_rest = self._at_rest or _size_and_time(self._path)
        self._require_rest()
        return self._open(f"{uri}&immutable=1", **settings)

    def _require_rest(self) -> None:
        """Refuse to read a file as one that does not change, if it does or is incomplete."""
        if self._at_rest is None:
            return
        log = Path(f"{self._path}-wal")
        if log.exists() and log.stat().st_size:
            raise StorageError(
                f"the file of the storage, {self._path}, cannot be read in a place that cannot be "
                f"written, because {log.name} holds a part of it: copy both to another folder"
            )
        if _size_and_time(self._path) != self._at_rest:
            raise StorageError(
                f"the file of the storage, {self._path}, was written while it was read in a place "
                "that cannot be written: try again"
            )

    def _open(self, name: str, **settings: Any) -> sqlite3.Connection:
        opened: sqlite3.Connection = sqlite3.connect(name, **settings)
        opened.isolation_level = None
        opened.execute(f"PRAGMA busy_timeout={_TRY_MS}")
        return opened


def sqlite_file(url: URL) -> Path:
    """Return the file that the URL of an SQLite storage names."""
    return Path((url.database or "").removeprefix("file:")).absolute()


def _may_write(path: Path) -> bool:
    # In the folder, too: there SQLite keeps what is not in the file yet.
    effective = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    return all(os.access(place, os.W_OK, **effective) for place in (path, path.parent))


def _size_and_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _until_unlocked(execute: Callable[[], object]) -> None:
    """Execute a statement that needs a lock, again and again while another process holds it."""
    limit = deadline()
    limit.listen()
    while True:
        try:
            execute()
            return
        except (sqlite3.OperationalError, sa.exc.OperationalError) as error:
            code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)
            if code & 0xFF not in _LOCKED or limit.has_passed():
                raise
