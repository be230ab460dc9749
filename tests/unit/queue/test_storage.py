from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from filelock import FileLock
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL

from skdtune.describe.presets import load_spec
from skdtune.errors import StorageError, StorageLostError
from skdtune.queue import deadline, leases, schema, storage
from skdtune.queue.deadline import Deadline, within
from skdtune.queue.history import TrialHistory
from skdtune.queue.leases import WorkerIdentity
from skdtune.queue.storage import (
    NETWORK_FILE_SYSTEMS,
    file_system_of,
    init_storage,
    masked,
    open_storage,
    parse_url,
    require_writable,
    set_up,
    upgrade_storage,
)
from skdtune.queue.stored_study import create_study, load_study
from skdtune.queue.trial_budget import set_budget
from skdtune.queue.trial_queue import TrialQueue

MARK = "S3cr3t"

passwords = st.builds(lambda a, b: f"{a}{MARK}{b}", *[st.text(st.characters(codec="utf-8"))] * 2)
unescaped = st.builds(lambda a, b: f"{a}{MARK}{b}", *[st.text("ab@:/?#%&=[]+")] * 2)


@given(password=passwords)
def test_an_escaped_password_is_read_and_never_shown(password: str) -> None:
    url = URL.create("postgresql", "me", password, "host", 5432, "skdtune")
    parsed = parse_url(url.render_as_string(hide_password=False))
    assert parsed.password == password
    assert parsed.drivername == "postgresql+psycopg"
    assert masked(parsed) == "postgresql+psycopg://me:***@host:5432/skdtune"


@given(password=unescaped)
@example(password=f"a@{MARK}")
@example(password=f"a@b/{MARK}")
@example(password=f"a@b?c={MARK}")
@example(password=f"a@b:{MARK}")
@example(password=f"a:{MARK}")
def test_an_unescaped_password_is_never_shown(password: str) -> None:
    try:
        shown = masked(parse_url(f"postgresql://me:{password}@host/skdtune"))
    except StorageError as error:
        shown = str(error)
    assert MARK not in shown


@given(password=passwords)
def test_a_password_among_the_parameters_is_never_shown(password: str) -> None:
    url = URL.create("postgresql", host="host", database="d", query={"password": password})
    parsed = parse_url(url.render_as_string(hide_password=False))
    assert parsed.query["password"] == password
    assert MARK not in masked(parsed)


@given(path=st.text(st.characters(codec="utf-8", exclude_characters="\x00?"), min_size=1))
def test_any_file_name_can_be_an_sqlite_storage(path: str) -> None:
    text = URL.create("sqlite", database=f"/{path}").render_as_string()
    parsed = parse_url(text)
    assert parsed.get_backend_name() == "sqlite"
    assert parsed.database == f"/{path}"


@given(text=st.text())
def test_any_other_text_is_refused_or_understood(text: str) -> None:
    try:
        kind = parse_url(text).get_backend_name()
    except StorageError as error:
        kind = str(error)
    assert kind in ("sqlite", "postgresql") or "storage" in kind
    assert "\n" not in kind


@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_name_of_postgresql_means_the_same_driver(driver: str) -> None:
    assert str(parse_url(f"{driver}://host/d").drivername) == "postgresql+psycopg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study.db", "cannot be read: expected sqlite:///FILE or postgresql+psycopg://"),
        ("mysql://host/d", "'mysql' is not supported: use sqlite:/// for one machine"),
        ("sqlite://", "needs a file: sqlite:///FILE"),
        ("sqlite:///:memory:", "needs a file: sqlite:///FILE"),
        ("postgresql://me:a@b@host/d", "'@' inside of its password: write it as %40"),
        ("postgresql://host:port/d", "cannot be read"),
    ],
)
def test_a_wrong_url_is_refused_with_the_remedy(text: str, message: str) -> None:
    with pytest.raises(StorageError) as caught:
        parse_url(text)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unreachable_server_is_one_line_without_the_password() -> None:
    url = f"postgresql://me:{MARK}@127.0.0.1:1/d"
    for door in (open_storage, init_storage):
        with pytest.raises(StorageError) as caught:
            door(url)
        assert "cannot be used" in str(caught.value)
        assert "me:***@127.0.0.1" in str(caught.value)
        assert MARK not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.fixture
def sqlite_storage(sqlite_url: str) -> Iterator[RDBStorage]:
    storage = init_storage(sqlite_url)
    yield storage
    storage.engine.dispose()


def test_sqlite_writes_ahead_and_waits_for_others(
    sqlite_storage: RDBStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with sqlite_storage.engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous")
        }
    assert found == {"journal_mode": "wal", "synchronous": 1}
    other = sqlite3.connect(tmp_path / "study.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    # A person is told what takes so long; whoever tries again later waits for a shorter time.
    monkeypatch.setattr(deadline, "WORD_AFTER_S", 0.0)
    with within(Deadline(0.1)), pytest.raises(sa.exc.OperationalError, match="is locked"):
        sqlite_storage.engine.connect().begin()
    assert caplog.text == ""
    release = threading.Timer(0.5, lambda: other.execute("COMMIT"))
    release.start()
    assert sqlite_storage.get_all_studies() == []
    assert caplog.text.count("another process holds its lock: waiting for at most 30 s") == 1
    release.join()
    other.close()


def test_an_sqlite_transaction_holds_the_write_lock_before_it_reads(
    sqlite_storage: RDBStorage, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "study.db", timeout=0, isolation_level=None)
    with sqlite_storage.engine.begin():
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT count(*) FROM studies").fetchone() == (0,)
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_optunas_own_sessions_take_the_write_lock_too(
    sqlite_storage: RDBStorage, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "study.db", timeout=0, isolation_level=None)
    with sqlite_storage.scoped_session() as session:
        session.execute(sa.select(schema.studies))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        session.rollback()
    other.close()


def test_a_storage_is_made_once_and_opened_again(any_url: str) -> None:
    with pytest.raises(StorageError, match=r"no such file|holds no studies yet"):
        open_storage(any_url)
    for door in (init_storage, init_storage, open_storage):
        storage = door(any_url)
        with storage.engine.connect() as connection:
            assert schema.own_version(connection) == schema.SCHEMA_VERSION
            tables = set(sa.inspect(connection).get_table_names())
            assert tables >= {"skdtune_lease", "skdtune_event", "skdtune_study"}
        assert storage.get_all_studies() == []
        storage.engine.dispose()


def test_a_storage_whose_set_up_was_cut_off_is_completed(any_url: str) -> None:
    storage = init_storage(any_url)
    schema.leases.drop(storage.engine)
    schema.events.drop(storage.engine)
    schema.version.drop(storage.engine)
    storage.engine.dispose()
    with pytest.raises(StorageError, match="holds no studies yet"):
        open_storage(any_url)
    storage = init_storage(any_url)
    with storage.engine.connect() as connection:
        assert sa.inspect(connection).has_table("skdtune_lease")
        assert sa.inspect(connection).has_table("skdtune_event")
    storage.engine.dispose()


def test_the_tables_of_skdtune_may_be_made_again(any_url: str) -> None:
    storage = init_storage(any_url)
    for _ in range(2):
        with storage.engine.begin() as connection:
            schema.create_own_tables(connection)
    with storage.engine.connect() as connection:
        assert schema.own_version(connection) == schema.SCHEMA_VERSION
        found = {index["name"] for index in sa.inspect(connection).get_indexes("trials")}
    assert found >= {"skdtune_waiting", "skdtune_begun"}
    storage.engine.dispose()


def test_the_clock_is_the_databases_and_counts_seconds_since_1970(any_url: str) -> None:
    storage = init_storage(any_url)
    before = time.time()
    with storage.engine.connect() as connection:
        times = [connection.scalar(sa.select(schema.now(connection))) for _ in range(3)]
    assert times == sorted(times)
    # The database runs on this very machine; its clock may be cut to milliseconds.
    assert before - 1 <= times[0] <= times[-1] <= time.time() + 1
    storage.engine.dispose()


def test_the_queue_is_found_by_its_index_however_many_trials_there_are(
    sqlite_url: str,
) -> None:
    create_study(load_spec("digits-drg-dsr", name="tiny", num_trials=5), storage=sqlite_url)
    with contextlib.closing(load_study("tiny", storage=sqlite_url)) as stored:
        executed: list[tuple[str, Any]] = []

        def note(*arguments: Any) -> None:
            executed.append(arguments[2:4])

        sa.event.listen(stored.engine, "before_cursor_execute", note)
        claimed = leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"))
        assert claimed is not None
        TrialHistory(TrialQueue(stored))._find_newest_id(stored.study_id)
        sa.event.remove(stored.engine, "before_cursor_execute", note)
        looks = [(text, values) for text, values in executed if text.startswith("SELECT")]
        with stored.engine.connect() as connection:
            plans = [
                str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all())
                for text, values in looks
            ]
    assert "skdtune_waiting" in plans[0]
    assert "skdtune_begun" in plans[1]
    assert not any("SCAN trials" in plan and "INDEX" not in plan for plan in plans)


def change(url: str, statement: str) -> None:
    storage = init_storage(url)
    with storage.engine.begin() as connection:
        connection.execute(sa.text(statement))
    storage.engine.dispose()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE skdtune_version SET schema_version = 99", "has schema 99 of skdtune"),
        ("UPDATE alembic_version SET version_num = 'v9.0.0.a'", "'v9.0.0.a', which is newer"),
        ("UPDATE version_info SET library_version = '4.5.0'", "was written by Optuna 4.5.0"),
        ("UPDATE alembic_version SET version_num = 'v2.6.0.a'", "was written by Optuna"),
    ],
)
def test_a_storage_of_other_versions_is_refused_with_the_remedy(
    statement: str, message: str, any_url: str
) -> None:
    change(any_url, statement)
    for door in (open_storage, init_storage):
        with pytest.raises(StorageError, match="upgrade") as caught:
            door(any_url)
        assert message in str(caught.value)


def test_an_upgrade_brings_an_older_storage_up_to_date(any_url: str) -> None:
    change(any_url, "UPDATE version_info SET library_version = '4.5.0'")
    with pytest.raises(StorageError):
        open_storage(any_url)
    upgrade_storage(any_url)
    open_storage(any_url).engine.dispose()


def test_a_missing_folder_is_not_made_unless_it_is_the_homes(
    tmp_path: Path, skdtune_home: Path
) -> None:
    with pytest.raises(StorageError, match=r"the folder .*/missing does not exist"):
        init_storage(f"sqlite:///{tmp_path}/missing/study.db")
    assert not (tmp_path / "missing").exists()
    skdtune_home.rmdir()
    init_storage(f"sqlite:///{skdtune_home}/skdtune.db").engine.dispose()
    assert (skdtune_home / "skdtune.db").is_file()


def test_opening_a_missing_file_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no such file; create a study first"):
        open_storage(f"sqlite:///{tmp_path}/study.db")
    assert not (tmp_path / "study.db").exists()


def test_the_set_up_lock_keeps_others_out(any_url: str) -> None:
    events: list[str] = []
    inside = threading.Event()
    free = threading.Event()

    def first() -> None:
        with set_up(any_url):
            inside.set()
            free.wait(30)
            events.append("first leaves")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    second = threading.Thread(target=lambda: _enter(any_url, events))
    second.start()
    second.join(0.5)
    assert events == []
    free.set()
    thread.join(30)
    second.join(30)
    assert events == ["first leaves", "second enters"]


def test_a_set_up_lock_that_somebody_holds_is_said_and_waited_for_no_longer_than_a_while(
    any_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    init_storage(any_url).engine.dispose()
    monkeypatch.setattr(storage, "WORD_AFTER_S", 0.0)
    monkeypatch.setattr(storage, "SETUP_WAIT_S", 0.2)
    with contextlib.ExitStack() as held:
        holder = "another process"
        if any_url.startswith("sqlite"):
            held.enter_context(FileLock(f"{any_url.removeprefix('sqlite:///')}.lock"))
        else:
            # As older versions held it, which behind a pooler never gave it back.
            engine = sa.create_engine(any_url, connect_args={"application_name": "older"})
            held.callback(engine.dispose)
            session = held.enter_context(engine.connect())
            session.execute(sa.text(f"SELECT pg_advisory_lock({storage._SETUP_LOCK})"))
            pid = session.scalar(sa.text("SELECT pg_backend_pid()"))
            holder = rf"the server's process {pid} \(older, since \d{{4}}-.*\)"
        with pytest.raises(StorageError, match=f"set-up lock .* is held for .* by {holder}: end"):
            create_study(load_spec("digits-dsr"), storage=any_url)
    assert caplog.text.count("waiting for the set-up lock of storage") == 1
    assert create_study(load_spec("digits-dsr"), storage=any_url)


def _enter(url: str, events: list[str]) -> None:
    with set_up(url):
        events.append("second enters")


def mounts(monkeypatch: pytest.MonkeyPatch, **types: str) -> None:
    """Pretend that file systems are mounted; a network one cannot be had in a test."""
    found = [SimpleNamespace(mountpoint=path, fstype=kind) for path, kind in types.items()]

    def partitions(all: bool = False) -> list[Any]:
        assert all, "network file systems are listed only with all=True"
        return found

    monkeypatch.setattr(psutil, "disk_partitions", partitions)


def test_the_longest_mount_point_holds_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts(monkeypatch, **{"/": "ext4", "/mnt": "xfs", "/mnt/nas": "nfs4", "/mnt/nas/b": "tmpfs"})
    kinds = {
        path: file_system_of(Path(path))
        for path in ("/a/b", "/mnt/c", "/mnt/nas/study.db", "/mnt/nas2/d", "/mnt/nas/b/c/d")
    }
    assert list(kinds.values()) == ["ext4", "xfs", "nfs4", "xfs", "tmpfs"]


def test_a_link_is_followed_to_its_file_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = tmp_path / "net"
    net.mkdir()
    (tmp_path / "link").symlink_to(net)
    mounts(monkeypatch, **{"/": "ext4", str(net.resolve()): "cifs"})
    assert file_system_of(tmp_path / "link" / "study.db") == "cifs"


def test_this_machines_own_temporary_folder_is_on_some_file_system(tmp_path: Path) -> None:
    listed = {part.fstype for part in psutil.disk_partitions(all=True)}
    assert file_system_of(tmp_path) in listed


@pytest.mark.parametrize("kind", sorted(NETWORK_FILE_SYSTEMS))
def test_sqlite_on_a_network_file_system_is_refused_with_the_remedy(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts(monkeypatch, **{"/": "ext4", str(tmp_path): kind})
    for door in (init_storage, open_storage, upgrade_storage):
        with pytest.raises(StorageError) as caught:
            door(f"sqlite:///{tmp_path}/study.db")
        assert f"network file system ({kind})" in str(caught.value)
        assert "use postgresql+psycopg://" in str(caught.value)
    assert not list(tmp_path.glob("study.db*"))


def test_the_check_of_the_file_system_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts(monkeypatch, **{"/": "ext4", str(tmp_path): "nfs"})
    monkeypatch.setenv("SKDTUNE_ALLOW_NETWORK_SQLITE", "1")
    init_storage(f"sqlite:///{tmp_path}/study.db").engine.dispose()
    assert (tmp_path / "study.db").is_file()


def test_postgresql_connections_are_pinged_and_few(postgres_url: str) -> None:
    storage = init_storage(postgres_url)
    engine = storage.engine
    with engine.connect() as connection:
        dropped = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    admin = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with admin.begin() as connection:
        connection.execute(sa.text(f"SELECT pg_terminate_backend({dropped})"))
    admin.dispose()
    assert storage.get_all_studies() == []
    assert engine.pool.size() == 2  # type: ignore[attr-defined]
    engine.dispose()


def test_a_storage_that_can_only_be_read_says_so(sqlite_url: str, tmp_path: Path) -> None:
    init_storage(sqlite_url).engine.dispose()
    storage = open_storage(f"sqlite:///file:{tmp_path}/study.db?mode=ro&uri=true")
    with pytest.raises(StorageError, match="is read-only, name one that can be written"):
        require_writable(storage)
    storage.engine.dispose()


def test_a_file_that_can_only_be_read_is_read_unless_a_part_of_it_is_missing() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as writers:
        place, url = Path(folder), f"sqlite:///{folder}/study.db"
        create_study(load_spec("digits-dsr", name="tiny"), storage=url)

        def read() -> int:
            with only_reading(place), contextlib.closing(load_study("tiny", storage=url)) as found:
                with pytest.raises(StorageError, match="is read-only, name one that can be writ"):
                    require_writable(found.storage)
                return len(found.study.get_trials())

        num_trials = read()
        assert not list(place.glob("*-wal")), "nobody has it open, and none was made"
        with only_reading(place):
            reader = writers.enter_context(contextlib.closing(load_study("tiny", storage=url)))
        writer = writers.enter_context(contextlib.closing(load_study("tiny", storage=url)))
        set_budget(writer.engine, writer.study_id, num_trials + 1)
        with (
            only_reading(place),
            pytest.raises(StorageError, match=r"cannot be read .* study\.db-wal holds a part"),
        ):
            reader.study.get_trials()
        assert read() == num_trials + 1, "a writer's files are enough to read it"
        # What a writer leaves that died, after its machine was started anew.
        left = place / "left"
        left.mkdir()
        for name in ("study.db", "study.db-wal"):
            shutil.copy(place / name, left)
        with only_reading(left), pytest.raises(StorageError, match="copy both to another folder"):
            load_study("tiny", storage=f"sqlite:///{left}/study.db")


@contextlib.contextmanager
def only_reading(folder: Path) -> Iterator[None]:
    """Be somebody who can write nothing in a folder."""
    for path in folder.glob("study.db*"):
        path.chmod(0o644)
    folder.chmod(0o555)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)
        folder.chmod(0o755)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_is_deleted_or_replaced_in_use_is_never_written(
    is_replaced: bool, sqlite_url: str, tmp_path: Path
) -> None:
    create_study(load_spec("digits-dsr", name="tiny"), storage=sqlite_url)
    with contextlib.closing(load_study("tiny", storage=sqlite_url)) as stored:
        (tmp_path / "study.db").rename(tmp_path / "kept.db")
        if is_replaced:
            create_study(load_spec("digits-dsr", name="tiny"), storage=sqlite_url)
        said = "is another one now" if is_replaced else "is gone"
        for _ in ("a connection that is open", "a new one"):
            with pytest.raises(StorageLostError, match=f"study.db, {said}: it was deleted or re"):
                leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"))
            stored.engine.dispose()
        assert (tmp_path / "study.db").exists() is is_replaced
        (tmp_path / "kept.db").rename(tmp_path / "study.db")
        assert leases.claim(stored.engine, stored.study_id, WorkerIdentity(device="cpu"))
