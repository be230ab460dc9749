"""One door to the storage: SQLite made safe for several processes, or PostgreSQL.

A storage is opened only where its schema exists; the schema is made once, under a lock, because
workers that create tables at the same time crash each other.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy as sa
from filelock import FileLock
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url

from skdtune.errors import StorageError
from skdtune.home import home
from skdtune.queue import schema
from skdtune.queue.patience import is_outage

_NETWORK = (
    "nfs nfs4 cifs smb smbfs smb2 smb3 afs lustre gpfs beegfs ceph glusterfs 9p pvfs2 orangefs "
    "ocfs2 davfs ncpfs fuse.sshfs fuse.glusterfs fuse.s3fs fuse.rclone fuse.gcsfuse"
)
NETWORK_FILE_SYSTEMS = frozenset(_NETWORK.split())

_SQLITE_BUSY_MS = 30_000
_CONNECT_TIMEOUT_S = 10
#: Key of the PostgreSQL advisory lock around set-up; any constant nobody else uses.
_SETUP_LOCK = 7_305_091_83


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

    Raises:
        StorageError: If the storage cannot be reached, written, or was made by newer versions.
    """
    url = parse_url(text)
    _refuse_network_file(url)
    file = _sqlite_file(url)
    # A folder of skdtune's own is made, one that a person may have mistyped is not.
    if file is not None and (file.parent == home().path or file.parent.name == "skdtune"):
        file.parent.mkdir(parents=True, exist_ok=True)
    with setup_lock(text), _translated(url):
        with _brief_engine(url) as engine, engine.connect() as connection:
            missing = not sa.inspect(connection).has_table("studies")
            ours_missing = not _has_own_tables(connection)
            if not missing:
                # Not even tables of our own are added to what other versions wrote.
                _refuse_newer(connection, url)
                _refuse_older(connection, url)
        if missing:
            _build(url, create=True).engine.dispose()
        if ours_missing:
            with _brief_engine(url) as engine:
                schema.create_own_tables(engine)
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
                raise StorageError(
                    f"storage {masked(url)} holds no studies yet: create one, or "
                    "`skdtune storage init`"
                )
            _refuse_newer(connection, url)
            _refuse_older(connection, url)
        return _build(url, create=False)


@contextlib.contextmanager
def setup_lock(text: str) -> Iterator[None]:
    """Let one process at a time make a schema or a study in this storage."""
    url = parse_url(text)
    file = _sqlite_file(url)
    if file is not None:
        if not file.parent.is_dir():
            raise StorageError(f"storage {masked(url)}: the folder {file.parent} does not exist")
        lock = FileLock(f"{file}.lock", timeout=60)
        try:
            lock.acquire()
        except OSError as error:
            reason = error.strerror or "another process holds its set-up lock"
            raise StorageError(f"storage {masked(url)} cannot be written: {reason}") from None
        try:
            with _translated(url):
                yield
        finally:
            lock.release()
        return
    # The lock belongs to the session. Without a transaction around it, the server's
    # idle_in_transaction_session_timeout cannot end the session while the lock is held.
    with (
        _translated(url),
        _brief_engine(url) as engine,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        connection.execute(sa.select(sa.func.pg_advisory_lock(_SETUP_LOCK)))
        yield


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
    with setup_lock(text), _translated(url):
        with _brief_engine(url) as engine, engine.connect() as connection:
            _refuse_newer(connection, url)
        storage = RDBStorage(
            url.render_as_string(hide_password=False),
            skip_compatibility_check=True,
            skip_table_creation=True,
        )
        storage.upgrade()
        schema.create_own_tables(storage.engine)
        storage.engine.dispose()


def _build(url: URL, *, create: bool) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs=_engine_arguments(url),
        skip_table_creation=not create,
        skip_compatibility_check=True,
    )
    if url.get_backend_name() == "sqlite":
        _make_sqlite_safe(storage.engine)
    return storage


@contextlib.contextmanager
def _brief_engine(url: URL) -> Iterator[sa.Engine]:
    """Open an engine whose connections are closed at the end, whatever happens."""
    engine = sa.create_engine(url, **_engine_arguments(url))
    if url.get_backend_name() == "sqlite":
        _make_sqlite_safe(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def _engine_arguments(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _SQLITE_BUSY_MS / 1000}}
    # A server or a firewall may have closed an idle connection during a long epoch: ping first.
    # Two connections are enough for a worker: its own and its heartbeat's.
    return {
        "pool_pre_ping": True,
        "pool_size": 2,
        "max_overflow": 2,
        "connect_args": {
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "application_name": "skdtune",
            # A server that vanished without a word is noticed in half a minute, not in hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 4,
            "tcp_user_timeout": 30_000,
        },
    }


def _make_sqlite_safe(engine: sa.Engine) -> None:
    """Take the write lock at the start of each transaction, and let readers go on meanwhile.

    SQLite ignores ``FOR UPDATE``: without this, two workers read the same waiting trial and both
    take it (measured: 15 of 60 trials).
    """

    def on_connect(dbapi: Any, _record: Any) -> None:
        dbapi.isolation_level = None
        dbapi.execute(f"PRAGMA busy_timeout={_SQLITE_BUSY_MS}")
        dbapi.execute("PRAGMA journal_mode=WAL")
        dbapi.execute("PRAGMA synchronous=NORMAL")

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    # Connections made before the listeners do not have the settings.
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
    from alembic.script import ScriptDirectory

    folder = Path(optuna.__file__).parent / "storages" / "_rdb" / "alembic"
    script = ScriptDirectory(str(folder))
    return str(script.get_current_head()), {r.revision for r in script.walk_revisions()}


def _sqlite_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    return Path(url.database.removeprefix("file:")).absolute()


def _require_file(url: URL) -> None:
    file = _sqlite_file(url)
    if file is not None and not file.is_file():
        raise StorageError(
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
