"""One door to the storage: SQLite made safe for several processes, or PostgreSQL.

A storage is opened only where its schema exists; the schema is made once, under a lock, because
workers that create tables at the same time crash each other.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import optuna
import psutil
import sqlalchemy as sa
from filelock import FileLock
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url

from skdtune.errors import StorageEmptyError, StorageError
from skdtune.home import home
from skdtune.queue import schema
from skdtune.queue.connections import connections_to
from skdtune.queue.deadline import WORD_AFTER_S, Deadline, within
from skdtune.queue.patience import is_outage
from skdtune.queue.sqlite_connections import sqlite_file

logger = logging.getLogger(__name__)

_NETWORK = (
    "nfs nfs4 cifs smb smbfs smb2 smb3 afs lustre gpfs beegfs ceph glusterfs 9p pvfs2 orangefs "
    "ocfs2 davfs ncpfs fuse.sshfs fuse.glusterfs fuse.s3fs fuse.rclone fuse.gcsfuse"
)
NETWORK_FILE_SYSTEMS = frozenset(_NETWORK.split())

#: Seconds that a process waits while another one makes a schema or a study.
SETUP_WAIT_S = 60.0
_SETUP_PAUSE_S = 0.1
_UPGRADE_S = 3600.0
#: Key of the PostgreSQL advisory lock around set-up; any constant nobody else uses.
_SETUP_LOCK = 7_305_091_83
_TRY_SETUP_LOCK = sa.select(sa.func.pg_try_advisory_xact_lock(_SETUP_LOCK))
_SETUP_LOCK_HOLDER = sa.text(
    "SELECT pid, application_name, xact_start FROM pg_locks JOIN pg_stat_activity USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND classid = 0 AND objsubid = 1 "
    f"AND objid = {_SETUP_LOCK} AND database = (SELECT oid FROM pg_database "
    "WHERE datname = current_database())"
)

#: What a call raises while the database is away.
DATABASE_ERRORS = (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)


def parse_url(text: str) -> URL:
    """Read a storage URL.

    Raises:
        StorageError: If it is no URL, or of a database that skdtune does not support.
    """
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise StorageError(
            "the storage URL cannot be read: expected sqlite:///FILE or "
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        # Wherever the parser cut it, the rest of the password would be shown as host or database.
        if text.count("@") > 1:
            raise StorageError(
                "the storage URL has an '@' inside of its password: write it as %40 "
                "(and : / ? # as %3A %2F %3F %23)"
            )
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if url.database in (None, "", ":memory:"):
            raise StorageError("an SQLite storage needs a file: sqlite:///FILE")
        return url
    raise StorageError(
        f"storage {url.drivername!r} is not supported: use sqlite:/// for one machine or "
        "postgresql+psycopg:// for several"
    )


def masked(url: URL) -> str:
    """Write a URL for people, its password hidden."""
    return url.difference_update_query(_secrets(url)).render_as_string(hide_password=True)


def _secrets(url: URL) -> list[str]:
    """List the parameters that libpq reads a password from."""
    return [name for name in url.query if "password" in name.lower()]


def init_storage(text: str) -> RDBStorage:
    """Make the schema where it is missing, then open the storage; safe to call at any time.

    Args:
        text: ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``.

    Raises:
        StorageError: If the storage cannot be reached, written, or was made by newer versions.
    """
    with set_up(text):
        pass
    return open_storage(text)


def open_storage(text: str) -> RDBStorage:
    """Open a storage whose schema exists.

    Args:
        text: ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``.

    Raises:
        StorageError: If the storage cannot be reached or written, has no schema yet, or was
            made by newer versions.
    """
    url = parse_url(text)
    _refuse_network_file(url)
    _require_file(url)
    with _translated(url):
        with _brief_engine(url) as engine, engine.connect() as connection:
            has_studies = sa.inspect(connection).has_table("studies")
            if not has_studies or not _has_own_tables(connection):
                raise StorageEmptyError(
                    f"storage {masked(url)} holds no studies yet: create one, or "
                    "`skdtune storage init`"
                )
            _refuse_newer(connection, url)
            _refuse_older(connection, url)
        return _build(url)


@contextlib.contextmanager
def set_up(text: str) -> Iterator[sa.Connection]:
    """Open the transaction in which one process at a time makes schema and studies.

    What is missing of the schema is there when it begins. All of it is one transaction, so that
    behind a pooler one connection of the server is enough, and nothing is left half made.

    Args:
        text: URL of the storage.

    Raises:
        StorageError: If the storage cannot be reached, written, or was made by newer versions,
            or if another process holds its set-up lock for too long.
    """
    url = parse_url(text)
    _refuse_network_file(url)
    file = _sqlite_file(url)
    # A folder of skdtune's own is made, one that a person may have mistyped is not.
    if file is not None and (file.parent == home().path or file.parent.name == "skdtune"):
        file.parent.mkdir(parents=True, exist_ok=True)
    # Takes a while to import, in which no transaction should be open.
    _known_revisions()
    with (
        _translated(url),
        _file_lock(url),
        _brief_engine(url) as engine,
        _locked_transaction(engine, url) as connection,
    ):
        if schema.has_optunas_tables(connection):
            # Not even tables of our own are added to what other versions wrote.
            _refuse_newer(connection, url)
            _refuse_older(connection, url)
        else:
            schema.create_optunas_tables(connection)
        if not _has_own_tables(connection):
            schema.create_own_tables(connection)
        yield connection


@contextlib.contextmanager
def _locked_transaction(engine: sa.Engine, url: URL) -> Iterator[sa.Connection]:
    """Begin a transaction that holds the set-up lock; on SQLite it is the write lock.

    The lock is of the transaction, not of the session, which behind a pooler belongs to somebody
    else a moment later.
    """
    wait = _SetupWait(url)
    while True:
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite" or connection.scalar(_TRY_SETUP_LOCK):
                yield connection
                return
            holder = connection.execute(_SETUP_LOCK_HOLDER).first()
        wait.go_on("another process" if holder is None else _describe_session(*holder))


@contextlib.contextmanager
def _file_lock(url: URL) -> Iterator[None]:
    """Hold the lock beside an SQLite file, which also guards its change to write-ahead mode."""
    file = _sqlite_file(url)
    if file is None:
        yield
        return
    if not file.parent.is_dir():
        raise StorageError(f"storage {masked(url)}: the folder {file.parent} does not exist")
    wait = _SetupWait(url)
    lock = FileLock(f"{file}.lock", timeout=0)
    while not lock.is_locked:
        try:
            lock.acquire()
        except TimeoutError:
            wait.go_on("another process")
        except OSError as error:
            raise StorageError(
                f"storage {masked(url)} cannot be written: {error.strerror}"
            ) from None
    try:
        yield
    finally:
        lock.release()


class _SetupWait:
    """A wait for the set-up lock: said after a while, ended after a longer one."""

    def __init__(self, url: URL) -> None:
        self._lock = f"the set-up lock of storage {masked(url)}"
        self._began = time.monotonic()
        self._is_said = False

    def go_on(self, holder: str) -> None:
        """Sleep until the next try.

        Raises:
            StorageError: If it took too long.
        """
        waited_s = time.monotonic() - self._began
        if waited_s > SETUP_WAIT_S:
            raise StorageError(
                f"{self._lock} is held for {waited_s:.0f} s by {holder}: end it, or try later"
            )
        if waited_s > WORD_AFTER_S and not self._is_said:
            self._is_said = True
            logger.warning("waiting for %s, held by %s", self._lock, holder)
        time.sleep(_SETUP_PAUSE_S)


def _describe_session(pid: int, application: str | None, since: datetime | None) -> str:
    """Name the session of the server that holds a lock."""
    begun = "" if since is None else f", since {since:%Y-%m-%d %H:%M:%S}"
    return f"the server's process {pid} ({application or 'of another role'}{begun})"


def require_writable(storage: RDBStorage) -> None:
    """Refuse a storage that can only be read, before any work is done for it.

    Raises:
        StorageError: If nothing can be written.
    """
    with _translated(storage.engine.url), storage.engine.begin() as connection:
        connection.execute(sa.delete(schema.leases).where(sa.false()))


def upgrade_storage(text: str) -> None:
    """Bring Optuna's tables to the installed version's schema; stop the workers before.

    Raises:
        StorageError: If the storage cannot be reached or written.
    """
    url = parse_url(text)
    _refuse_network_file(url)
    _require_file(url)
    with (
        _translated(url),
        _file_lock(url),
        _brief_engine(url) as engine,
        # Large tables take a while to change, and the server says nothing meanwhile.
        within(Deadline(_UPGRADE_S)),
        _locked_transaction(engine, url) as connection,
    ):
        _refuse_newer(connection, url)
        schema.upgrade_optunas_tables(connection)
        schema.create_own_tables(connection)


def _build(url: URL) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    connections = connections_to(url)
    storage = RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs=connections.arguments,
        skip_table_creation=True,
        skip_compatibility_check=True,
    )
    connections.guard(storage.engine)
    return storage


@contextlib.contextmanager
def _brief_engine(url: URL) -> Iterator[sa.Engine]:
    """Open an engine whose connections are closed at the end, whatever happens."""
    connections = connections_to(url)
    engine = sa.create_engine(url, **connections.arguments)
    connections.guard(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def _has_own_tables(connection: sa.Connection) -> bool:
    has_table = sa.inspect(connection).has_table(schema.version.name)
    return has_table and schema.own_version(connection) is not None


def _refuse_newer(connection: sa.Connection, url: URL) -> None:
    where = f"storage {masked(url)}"
    ours = schema.own_version(connection) if _has_own_tables(connection) else None
    if ours is not None and ours > schema.SCHEMA_VERSION:
        raise StorageError(
            f"{where} has schema {ours} of skdtune, this version knows "
            f"{schema.SCHEMA_VERSION}: upgrade skdtune"
        )
    _, revision = _optuna_versions(connection)
    head, known = _known_revisions()
    if revision not in known:
        raise StorageError(
            f"{where} has Optuna schema {revision!r}, which is newer than Optuna "
            f"{optuna.__version__} ({head}): upgrade optuna"
        )


def _refuse_older(connection: sa.Connection, url: URL) -> None:
    library, revision = _optuna_versions(connection)
    head, _ = _known_revisions()
    if revision != head or library.startswith(("1.", "2.", "3.", "4.")):
        # Optuna 4 wrote local times where Optuna 5 reads UTC.
        raise StorageError(
            f"storage {masked(url)} was written by Optuna {library}: stop its workers, make a "
            "backup and run `skdtune storage upgrade`"
        )


def _optuna_versions(connection: sa.Connection) -> tuple[str, str]:
    library = connection.execute(sa.text("SELECT library_version FROM version_info")).scalar()
    revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return str(library), str(revision)


@functools.cache
def _known_revisions() -> tuple[str, set[str]]:
    script = schema.optunas_migrations()
    return str(script.get_current_head()), {r.revision for r in script.walk_revisions()}


def _sqlite_file(url: URL) -> Path | None:
    return sqlite_file(url) if url.get_backend_name() == "sqlite" else None


def _require_file(url: URL) -> None:
    file = _sqlite_file(url)
    if file is not None and not file.is_file():
        raise StorageEmptyError(
            f"storage {masked(url)}: there is no such file; create a study first, or name "
            "another with --storage"
        )


def _refuse_network_file(url: URL) -> None:
    file = _sqlite_file(url)
    kind = file_system_of(file) if file is not None else None
    if kind in NETWORK_FILE_SYSTEMS:
        raise StorageError(
            f"storage {masked(url)} lies on a network file system ({kind}), where SQLite loses "
            "data: put it on a local disk, or use postgresql+psycopg://"
        )


def file_system_of(path: Path) -> str | None:
    """Return the type of the file system that holds a path, as the system names it."""
    if os.environ.get("SKDTUNE_ALLOW_NETWORK_SQLITE") == "1":
        return None
    path = path.resolve()
    mounts = [
        (Path(part.mountpoint), part.fstype)
        for part in psutil.disk_partitions(all=True)
        if path.is_relative_to(part.mountpoint)
    ]
    return max(mounts, key=lambda mount: len(mount[0].parts))[1] if mounts else None


@contextlib.contextmanager
def _translated(url: URL) -> Iterator[None]:
    """Turn the database's errors into one line without its password."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise StorageError(_explain(url, error), may_pass=is_outage(error)) from None


def _explain(url: URL, error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(getattr(cause, "orig", None) or cause).strip().splitlines() or [""]
    reason = text[0]
    for secret in (url.password, *(url.query[name] for name in _secrets(url))):
        if secret:
            reason = reason.replace(str(secret), "***")
    lowered = reason.lower()
    if "readonly" in lowered or "read-only" in lowered:
        return f"storage {masked(url)} is read-only, name one that can be written: {reason}"
    return f"storage {masked(url)} cannot be used, check the URL and the server: {reason}"
