"""Bad input: one line on stderr that names the value and the remedy, exit code 2, nothing changed.

Most commands run in this process, through the entry point of the command line; where a
traceback or a password could escape, or a worker is started, they run as processes of their own.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import optuna
import psutil
import pytest
import sqlalchemy as sa
from data_makers import imagefolder
from PIL import Image

import skdtune
from skdtune.__main__ import main
from skdtune.describe.presets import load_spec
from skdtune.home import Home
from skdtune.queue.schema import SCHEMA_VERSION
from skdtune.queue.storage import NETWORK_FILE_SYSTEMS
from skdtune.queue.stored_study import create_study

Call = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]

pytestmark = pytest.mark.usefixtures("connections_end")

PASSWORD = "hunter2pass"

#: Files that only say that somebody is at work, or that SQLite keeps beside a database.
TRACES = (".lock", "-wal", "-shm")


@pytest.fixture(autouse=True)
def forget_verbosity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no -v of one test bring tracebacks into another: a process knows one command line."""
    monkeypatch.setattr("skdtune.cli.application._verbose", False)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return run


@pytest.fixture
def run_process() -> Call:
    """Run the command line as a process of its own: exit code, stdout, stderr."""

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "skdtune", *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def one_line(outcome: tuple[int, str, str]) -> str:
    """Check the contract of bad input and return the message."""
    code, out, err = outcome
    assert code == 2, err
    assert out == ""
    assert err.startswith("skdtune: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err.removeprefix("skdtune: ").strip()


@pytest.fixture
def refused(call: Call, skdtune_home: Path) -> Refused:
    """Run a command that must be refused without a change, and return its message."""

    def run(*arguments: str, url: str | None = None) -> str:
        before = files_in(skdtune_home), content(url)
        message = one_line(call(*(("--storage", url) if url else ()), *arguments))
        assert (files_in(skdtune_home), content(url)) == before
        return message

    return run


def files_in(folder: Path) -> dict[str, str]:
    """Return the files below a folder by their hashes, a default storage by its content."""
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith((*TRACES, ".db"))
    }
    for database in folder.rglob("*.db"):
        found[str(database.relative_to(folder))] = content(f"sqlite:///{database}")
    return found


def content(url: str | None) -> str:
    """Return everything that a database holds; nothing for a file that is not there."""
    if url is None or (
        url.startswith("sqlite") and not Path(sa.make_url(url).database or "").exists()
    ):
        return ""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        names = sorted(sa.inspect(connection).get_table_names())
        rows = {
            name: sorted(map(repr, connection.execute(sa.text(f"SELECT * FROM {name}"))))
            for name in names
        }
    engine.dispose()
    return repr(rows)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a storage with a study of three trials, digits-dsr, to be copied."""
    path = tmp_path_factory.mktemp("stored") / "skdtune.db"
    url = f"sqlite:///{path}"
    assert create_study(load_spec("digits-dsr", num_trials=3), storage=url)
    with sa.create_engine(url).connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def study(stored: Path, skdtune_home: Path) -> str:
    """Put a study, digits-dsr, into the default storage and return the URL."""
    shutil.copy(stored, skdtune_home / "skdtune.db")
    return Home(skdtune_home).storage_url


def change(url: str, *statements: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def states(url: str) -> set[str]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {str(row[0]) for row in connection.execute(sa.text("SELECT state FROM trials"))}
        leases = connection.execute(sa.text("SELECT count(*) FROM skdtune_lease")).scalar()
    engine.dispose()
    assert leases == 0
    return found


# The checks of this file can fail


def test_a_changed_storage_is_noticed(study: str, skdtune_home: Path) -> None:
    before = files_in(skdtune_home), content(study)
    change(study, "UPDATE trials SET state = 'RUNNING' WHERE number = 0")
    assert files_in(skdtune_home) != before[0]
    assert content(study) != before[1]


def test_good_input_is_not_refused(call: Call, skdtune_home: Path) -> None:
    before = files_in(skdtune_home)
    code, out, err = call("create-study", "digits-dsr", "--trials", "2")
    assert (code, err) == (0, "")
    assert out.startswith("created digits-dsr: 2 trials")
    assert files_in(skdtune_home) != before


# Presets, files, keys and values


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (
            "cifar100-drs",
            "unknown preset 'cifar100-drs'; did you mean 'cifar100-dsr'? "
            "`skdtune studies` lists them",
        ),
        ("zzz", "unknown preset 'zzz'; `skdtune studies` lists them"),
        ("", "unknown preset ''; `skdtune studies` lists them"),
        ("missing.yaml", "no study file at missing.yaml"),
        ("./digits-dsr", "no study file at ./digits-dsr"),
    ],
)
def test_an_unknown_study_to_create(refused: Refused, preset: str, message: str) -> None:
    assert refused("create-study", preset) == message


def test_a_name_longer_than_any_file(refused: Refused) -> None:
    assert refused("create-study", "x" * 300).startswith("unknown preset 'xxx")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        # A key that nobody knows, or a misspelt one: file, key, nearest key.
        ("optimzer: {lr: 0.1}", ("optimzer: unknown key", "did you mean 'optimizer'?")),
        ("optimizer: {lrr: 0.1}", ("optimizer.lrr: unknown key", "did you mean 'lr'?")),
        (
            "method: {dsr: {temprature: 3}}",
            ("method.dsr.temprature: unknown key", "did you mean 'temperature'?"),
        ),
        (
            "pruner: {name: asha, min_epoch: 1}",
            ("pruner.min_epoch: unknown key", "did you mean 'min_epochs'?"),
        ),
        (
            "search: {optimizer.lrr: {type: float, low: 1, high: 2}}",
            ("search.optimizer.lrr: no such field", "did you mean 'optimizer.lr'?"),
        ),
        (
            "search: {optimizer.lr: {lwo: 0.1}}",
            ("search.optimizer.lr.lwo: unknown key", "did you mean 'low'?"),
        ),
        (
            "search: {optimizer.momentum: {low: 0.5, high: 0.9}}",
            ("search.optimizer.momentum", "its key 'type' is missing"),
        ),
        # A value out of its range, or of another type.
        ("optimizer: {lr: -1}", ("optimizer.lr: received -1", "greater than 0")),
        ("data: {val_fraction: 1.0}", ("data.val_fraction: received 1.0", "less than 1")),
        ("budget: {epochs: 0}", ("budget.epochs: received 0", "greater than or equal to 1")),
        ("num_trials: 0", ("num_trials: received 0", "greater than or equal to 1")),
        ("optimizer: {lr: fast}", ("optimizer.lr: received 'fast'", "valid number")),
        ("model: {name: resnet9}", ("model.name: received 'resnet9'", "'resnet8'")),
        ("pruner: {name: ashaa}", ("pruner: received 'ashaa'", "'asha'")),
        ("optimizer: {lr: 0.9}", ("trial 0 would try 0.9", "search.optimizer.lr=null")),
        ("search: [optimizer.lr]", ("search: received ['optimizer.lr']",)),
        # A stage that the backbone lacks.
        (
            "method: {drg: {stages: [3]}}",
            ("method.drg.stages: resnet8 has 3 stages", "stages 1, 2", "received [3]"),
        ),
        # Text that is no study.
        ("extends2: x\nextends2: y", ("line 3: key 'extends2' stands twice",)),
        ("description: !!python/object/apply:os.getcwd []", ("line 2: ", "python")),
        ("seed: [", ("line 3: ",)),
    ],
)
def test_a_wrong_study_file(
    refused: Refused, tmp_path: Path, text: str, parts: tuple[str, ...]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: digits-dsr\n{text}\n")
    message = refused("create-study", str(file))
    assert "mine.yaml" in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optimizer.lrr=1", ("--set optimizer.lrr: unknown key", "did you mean 'optimizer.lr'?")),
        ("lr=1", ("--set lr: unknown key", "did you mean 'optimizer.lr'?")),
        (
            "search.optimizer.lr.hihg=1",
            ("--set search.optimizer.lr.hihg: unknown key", "did you mean 'high'?"),
        ),
        ("optimizer.lr", ("--set optimizer.lr: expected key=value", "optimizer.lr=0.05")),
        ("optimizer.lr=fast", ("optimizer.lr: received 'fast'", "valid number")),
        ("optimizer.nesterov=1", ("optimizer.nesterov: received 1", "valid boolean")),
        ("data.batch_size=6.5", ("data.batch_size: received 6.5", "valid integer")),
        ("data.batch_size=1", ("data.batch_size: received 1", "greater than or equal to 2")),
        ("optimizer=1", ("optimizer: received 1",)),
        ("search=5", ("search: received 5",)),
        ("optimizer.lr=2001-99-99", ("--set optimizer.lr=2001-99-99", "not valid YAML")),
        ("optimizer.lr=&a [*a]", ("an alias stands for what it is a part of",)),
        ("method.drg.stages=[3]", ("method.drg.stages: resnet8 has 3 stages", "received [3]")),
        ("method.drg.stages=[2, 1]", ("in ascending order", "received [2, 1]")),
        ("model.name=resnet9", ("model.name: received 'resnet9'", "'resnet20'")),
        ("method.drg=null", ("method.drg is switched off", "search.method.drg.weight=null")),
        ("pruner.warmup_epochs=2", ("pruner.warmup_epochs: unknown key", "min_epochs")),
        ("name=my study", ("name: received 'my study'",)),
    ],
)
def test_a_wrong_set(refused: Refused, override: str, parts: tuple[str, ...]) -> None:
    message = refused("create-study", "digits-drg", "--set", override)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        # Terms that cannot share their batches.
        (
            ("digits-dlb", "--set", "method.cs_kd={}"),
            ("method: these cannot share their batches: cs_kd needs class_pairs, dlb needs",),
        ),
        (
            ("digits-bake", "--set", "method.bake.num_companions=4"),
            ("method.bake.num_companions: one more than it must divide data.batch_size (64)",),
        ),
        (
            ("digits-byot", "--set", "method.byot.stages=[3]"),
            ("method.byot.stages: resnet8 has 3 stages", "received [3]"),
        ),
        # Budgets.
        (
            ("digits-drg", "--set", "budget.images=9", "--set", "budget.seconds=9"),
            ("budget: give epochs, or images, or seconds; received two of them",),
        ),
        # Families.
        (
            ("digits-compare", "--set", "method.drg.weight=0.3"),
            ("--set method.drg.weight: a family has several methods",),
        ),
        (("digits-compare", "--set", "name=x"), ("--set name: the studies of a family",)),
        (("digits-compare", "--name", "my family"), ("name: received 'my family-baseline'",)),
        # A teacher.
        (
            ("digits-tfkd-self",),
            (
                "digits-tfkd-self.yaml: method.tf_kd_self.teacher: needs a trained",
                "skdtune export",
            ),
        ),
        (
            ("digits-tfkd-self", "--set", "method.tf_kd_self.teacher=/not/there"),
            ("method.tf_kd_self.teacher: /not/there cannot be read (No such file",),
        ),
    ],
    ids=lambda value: " ".join(value[:1] + value[2:]) if value[0].startswith("digits") else "",
)
def test_a_method_a_budget_or_a_family_that_cannot_be(
    refused: Refused, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    message = refused("create-study", *arguments)
    assert all(part in message for part in parts), message


def test_a_budget_that_cannot_be_planned_for_want_of_data(
    refused: Refused, tmp_path: Path
) -> None:
    root = f"data.root={tmp_path / 'missing'}"
    message = refused(
        "create-study", "imagefolder-drg", "--set", root, "--set", "budget.images=1000000"
    )
    assert message.startswith("the budget of imagefolder-drg cannot be planned here: ")
    assert str(tmp_path / "missing") in message


def test_a_budget_that_pays_for_no_epoch(call: Call, skdtune_home: Path) -> None:
    message = one_line(call("create-study", "digits-drg", "--set", "budget.images=100"))
    assert message == "budget.images: 100 do not pay for one epoch of digits-drg, which takes 960"
    # The decoded images are there, which change nothing.
    assert {path.name for path in skdtune_home.iterdir()} <= {"cache", "data"}


def test_a_family_of_which_one_study_is_there_already(
    refused: Refused, call: Call, skdtune_home: Path
) -> None:
    url = f"sqlite:///{skdtune_home / 'skdtune.db'}"
    name = "digits-compare-zipf"
    assert call("create-study", "digits-zipf", "--name", name, "--trials", "2")[0] == 0
    message = refused("create-study", "digits-compare", "--trials", "2", url=url)
    assert message.startswith(f"study '{name}' exists with another spec (")
    assert "family" in message


def test_a_folder_of_images_that_is_not_named(refused: Refused) -> None:
    message = refused("create-study", "imagefolder-dsr")
    assert "data.root" in message
    assert "--set data.root=DIR" in message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("create-stduy", "x"), ("'create-stduy'", "create-study")),
        (("create-study",), ("NAME|FILE", "skdtune create-study --help")),
        (("create-study", "digits-dsr", "--trials", "0"), ("'--trials'", "0", "x>=1")),
        (("create-study", "digits-dsr", "--trials", "many"), ("'--trials'", "'many'")),
        (("create-study", "digits-dsr", "--dry"), ("--dry-run",)),
        (("status", "--jsn"), ("'--jsn'", "--json")),
        (("status", "one", "two"), ("two", "skdtune status --help")),
        (("worker", "x", "--max-trials", "0"), ("'--max-trials'", "0")),
        (("launch", "x", "--workers", "0"), ("'--workers'", "0")),
        (("dashboard", "--port", "70000"), ("'--port'", "70000")),
        (("storage", "rep"), ("'rep'", "reap")),
        (("--storage",), ("'--storage'",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_use_of_the_command_line(
    refused: Refused, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    message = refused(*arguments)
    assert all(part in message for part in parts), message


# Studies


@pytest.mark.parametrize("command", ["status", "best", "trials", "worker", "launch"])
def test_an_unknown_study(refused: Refused, study: str, command: str) -> None:
    options = ("--gpus", "none") if command == "launch" else ()
    expected = "there is no study 'digits-drs' in this storage; did you mean 'digits-dsr'?"
    assert refused(command, "digits-drs", *options) == expected


def test_an_unknown_study_like_no_other(refused: Refused, study: str) -> None:
    expected = "there is no study 'zzz' in this storage; `skdtune status` lists the studies"
    assert refused("status", "zzz") == expected


def test_the_best_of_a_study_without_results(refused: Refused, study: str) -> None:
    message = refused("best", "digits-dsr")
    assert "'digits-dsr' has no complete trial yet" in message
    assert "skdtune status digits-dsr" in message


def test_a_study_that_exists_with_another_spec(refused: Refused, study: str) -> None:
    message = refused(
        "create-study", "digits-dsr", "--trials", "4", "--set", "optimizer.momentum=0.8"
    )
    assert message == (
        "study 'digits-dsr' exists with another spec (num_trials: 3 there, 4 here; "
        "optimizer.momentum: 0.9 there, 0.8 here); choose another --name"
    )


def test_a_study_that_exists_with_the_same_spec_is_no_error(call: Call, study: str) -> None:
    before = content(study)
    code, out, err = call("create-study", "digits-dsr", "--trials", "3")
    assert (code, err) == (0, "")
    assert out == "digits-dsr is there already with the same spec; nothing changed\n"
    assert content(study) == before


def test_a_study_of_optuna_that_is_not_ours(refused: Refused, study: str) -> None:
    optuna.create_study(study_name="theirs", storage=study)
    assert refused("status", "theirs") == (
        "study 'theirs' was not created by skdtune: it holds no spec"
    )
    message = refused("create-study", "digits-drg", "--name", "theirs")
    assert message.endswith("was not created by skdtune; choose another --name")


def test_a_spec_that_somebody_changed_in_the_storage(refused: Refused, study: str) -> None:
    change(
        study,
        "UPDATE study_system_attributes SET value_json = replace(value_json, ': 12,', ': 13,') "
        "WHERE key = 'skdtune:spec'",
    )
    assert refused("status", "digits-dsr") == (
        "study 'digits-dsr': its spec was changed after it was created"
    )


# Storages that cannot be used


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


#: Commands that open a storage, each in its own way.
OPENING = [
    ("create-study", "digits-dsr"),
    ("status",),
    ("status", "digits-dsr", "--json"),
    ("best", "digits-dsr"),
    ("trials", "digits-dsr"),
    ("launch", "digits-dsr", "--gpus", "none"),
    ("dashboard", "--port", "0"),
    ("storage", "init"),
    ("storage", "check"),
    ("storage", "upgrade"),
    ("storage", "reap"),
]


@pytest.mark.parametrize("command", OPENING, ids=" ".join)
def test_a_server_that_is_not_there(call: Call, command: tuple[str, ...]) -> None:
    address = f"127.0.0.1:{closed_port()}"
    url = f"postgresql+psycopg://ann:{PASSWORD}@{address}/db"
    message = one_line(call("--storage", url, *command))
    assert message.startswith(f"storage postgresql+psycopg://ann:***@{address}/db cannot be used")
    assert "check the URL and the server" in message
    assert PASSWORD not in message


SECRETIVE = {
    "plain": f"postgresql+psycopg://ann:{PASSWORD}@127.0.0.1:PORT/db",
    "short scheme": f"postgresql://ann:{PASSWORD}@127.0.0.1:PORT/db",
    "in the query": f"postgresql://127.0.0.1:PORT/db?user=ann&password={PASSWORD}",
    "key password": f"postgresql://ann@127.0.0.1:PORT/db?sslpassword={PASSWORD}",
    "raw at": f"postgresql://ann:x@{PASSWORD}@127.0.0.1:PORT/db",
    "raw at, then slash": f"postgresql://ann:x@y/{PASSWORD}@127.0.0.1:PORT/db",
    "raw at, then colon": f"postgresql://ann:x@y:{PASSWORD}@127.0.0.1:PORT/db",
    "raw at, then question mark": f"postgresql://ann:x@y?{PASSWORD}@127.0.0.1:PORT/db",
    "raw percent": f"postgresql://ann:%zz{PASSWORD}@127.0.0.1:PORT/db",
    "raw slash": f"postgresql://ann:/{PASSWORD}@127.0.0.1:PORT/db",
    "no such port": f"postgresql://ann:{PASSWORD}@127.0.0.1:many/db",
    "another database": f"mysql://ann:{PASSWORD}@127.0.0.1:PORT/db",
    "no scheme": f"ann:{PASSWORD}@127.0.0.1:PORT/db",
}


@pytest.mark.parametrize("url", SECRETIVE.values(), ids=SECRETIVE)
def test_a_password_is_never_shown(call: Call, url: str) -> None:
    url = url.replace("PORT", str(closed_port()))
    message = one_line(call("--storage", url, "create-study", "digits-dsr"))
    assert PASSWORD not in message
    assert "storage" in message


@pytest.mark.parametrize("name", ["plain", "in the query", "raw at, then slash"])
def test_a_password_is_not_in_the_traceback_either(run_process: Call, name: str) -> None:
    url = SECRETIVE[name].replace("PORT", str(closed_port()))
    code, out, err = run_process("status", "-v", SKDTUNE_STORAGE=url)
    assert code == 2
    assert "Traceback" in err
    assert PASSWORD not in out + err
    assert one_line(run_process("status", SKDTUNE_STORAGE=url)) in err


def test_an_at_sign_in_a_password_is_refused_with_the_remedy(call: Call) -> None:
    message = one_line(call("--storage", "postgresql://ann:p@ss@db.example.org/x", "status"))
    assert "write it as %40" in message


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("nonsense", "expected sqlite:///FILE or postgresql+psycopg://"),
        ("mysql://h/db", "'mysql' is not supported: use sqlite:/// for one machine"),
        ("sqlite://", "needs a file: sqlite:///FILE"),
        ("sqlite:///:memory:", "needs a file: sqlite:///FILE"),
    ],
)
def test_a_url_that_is_no_storage(refused: Refused, url: str, part: str) -> None:
    assert part in refused("--storage", url, "create-study", "digits-dsr")


def test_an_sqlite_file_in_a_folder_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    url = f"sqlite:///{folder}/study.db"
    assert f"the folder {folder} does not exist" in refused("create-study", "digits-dsr", url=url)
    assert not folder.exists()


def test_an_sqlite_file_that_is_not_there(refused: Refused, sqlite_url: str) -> None:
    message = refused("status", url=sqlite_url)
    assert "there is no such file; create a study first, or name another with --storage" in message


def test_a_file_that_is_no_database(refused: Refused, skdtune_home: Path) -> None:
    (skdtune_home / "notes.txt").write_text("these are notes\n" * 100)
    url = f"sqlite:///{skdtune_home}/notes.txt"
    for command in ("create-study", "digits-dsr"), ("status",):
        assert "file is not a database" in refused("--storage", url, *command)


def test_a_database_without_our_tables(refused: Refused, sqlite_url: str) -> None:
    change(sqlite_url, "CREATE TABLE notes (text VARCHAR)")
    message = refused("status", url=sqlite_url)
    assert message.endswith("holds no studies yet: create one, or `skdtune storage init`")


@pytest.mark.parametrize(
    "command",
    [
        ("create-study", "digits-drg"),
        ("worker", "digits-dsr", "--device", "cpu"),
        ("storage", "reap"),
    ],
    ids=" ".join,
)
def test_an_sqlite_file_that_can_only_be_read(
    refused: Refused, study: str, command: tuple[str, ...]
) -> None:
    # Opened read-only: the modes of a file mean nothing to root.
    path = study.removeprefix("sqlite:///")
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    message = refused("--storage", url, *command)
    assert "is read-only, name one that can be written" in message
    assert path in message


def test_an_sqlite_file_that_can_only_be_read_can_be_read(call: Call, study: str) -> None:
    url = f"sqlite:///file:{study.removeprefix('sqlite:///')}?mode=ro&uri=true"
    code, out, _ = call("--storage", url, "status", "digits-dsr", "--json")
    assert code == 0
    assert '"waiting": 3' in out


@pytest.fixture
def read_only_server(postgres_url: str) -> str:
    """Return a PostgreSQL database with a study in which nothing can be written any more."""
    assert create_study(load_spec("digits-dsr", num_trials=3), storage=postgres_url)
    name = sa.make_url(postgres_url).database
    change(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    return postgres_url


@pytest.mark.parametrize(
    "command",
    [
        ("create-study", "digits-drg"),
        ("worker", "digits-dsr", "--device", "cpu"),
        ("storage", "reap"),
    ],
    ids=" ".join,
)
def test_a_server_that_can_only_be_read(
    refused: Refused, read_only_server: str, command: tuple[str, ...]
) -> None:
    message = refused(*command, url=read_only_server)
    assert "is read-only, name one that can be written" in message


def test_an_empty_server_that_can_only_be_read(refused: Refused, postgres_url: str) -> None:
    name = sa.make_url(postgres_url).database
    change(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "is read-only" in refused("create-study", "digits-drg", url=postgres_url)


def test_a_database_that_is_not_on_the_server(call: Call, postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(database="nobody").render_as_string(hide_password=False)
    assert '"nobody" does not exist' in one_line(call("--storage", url, "status"))


# SQLite on a network file system. Mounting one takes rights that tests do not have; the list of
# mounted file systems, which is all that skdtune looks at, is the system's otherwise.


@pytest.fixture
def network_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    real = psutil.disk_partitions
    share = tmp_path / "share"
    share.mkdir()

    def mount(kind: str) -> Path:
        extra = SimpleNamespace(mountpoint=str(share), fstype=kind)
        monkeypatch.setattr(psutil, "disk_partitions", lambda all: [*real(all=all), extra])
        return share

    return mount


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs"])
@pytest.mark.parametrize("command", ["create-study digits-dsr", "status", "storage upgrade"])
def test_an_sqlite_file_on_a_network_file_system(
    refused: Refused, network_share: Callable[[str], Path], kind: str, command: str
) -> None:
    assert kind in NETWORK_FILE_SYSTEMS
    share = network_share(kind)
    message = refused("--storage", f"sqlite:///{share}/study.db", *command.split())
    assert f"lies on a network file system ({kind})" in message
    assert "put it on a local disk, or use postgresql+psycopg://" in message
    assert list(share.iterdir()) == []


def test_a_link_to_a_network_file_system_does_not_hide_it(
    refused: Refused, network_share: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "local").symlink_to(network_share("nfs"))
    url = f"sqlite:///{tmp_path}/local/study.db"
    assert "network file system (nfs)" in refused("--storage", url, "create-study", "digits-dsr")


def test_a_local_file_beside_a_network_file_system_is_fine(
    call: Call, network_share: Callable[[str], Path], sqlite_url: str
) -> None:
    network_share("nfs4")
    code, _, err = call("--storage", sqlite_url, "storage", "init")
    assert (code, err) == (0, "")


# Other versions


@pytest.fixture
def database(any_url: str) -> str:
    """Return a storage with one study, once of each kind."""
    assert create_study(load_spec("digits-dsr", num_trials=3), storage=any_url)
    return any_url


def test_a_database_of_a_newer_skdtune(refused: Refused, database: str) -> None:
    newer = SCHEMA_VERSION + 1
    change(database, f"UPDATE skdtune_version SET schema_version = {newer}")
    for command in ("create-study", "digits-drg"), ("status",), ("storage", "upgrade"):
        message = refused(*command, url=database)
        assert f"has schema {newer} of skdtune, this version knows {SCHEMA_VERSION}" in message
        assert message.endswith("upgrade skdtune")


def test_a_database_of_a_newer_optuna(refused: Refused, database: str) -> None:
    change(database, "UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    for command in ("create-study", "digits-drg"), ("status",), ("storage", "upgrade"):
        message = refused(*command, url=database)
        assert f"schema 'v9.0.0.a', which is newer than Optuna {optuna.__version__}" in message
        assert message.endswith("upgrade optuna")


def test_a_database_that_optuna_4_wrote(refused: Refused, call: Call, database: str) -> None:
    change(database, "UPDATE version_info SET library_version = '4.5.0'")
    for command in ("create-study", "digits-drg"), ("status",), ("storage", "init"):
        message = refused(*command, url=database)
        assert "was written by Optuna 4.5.0: stop its workers, make a backup" in message
        assert message.endswith("run `skdtune storage upgrade`")
    # The remedy works.
    code, _, err = call("--storage", database, "storage", "upgrade")
    assert (code, err) == (0, "")
    assert call("--storage", database, "status", "digits-dsr")[0] == 0


def test_a_database_that_only_optuna_4_knows(refused: Refused, any_url: str) -> None:
    optuna.create_study(study_name="theirs", storage=any_url)
    change(any_url, "UPDATE version_info SET library_version = '4.5.0'")
    assert "was written by Optuna 4.5.0" in refused("create-study", "digits-drg", url=any_url)
    assert "skdtune_version" not in content(any_url)


# Devices


@pytest.mark.parametrize(
    ("device", "part"),
    [
        ("cuda:77", "device 'cuda:77' is not there: this machine has cpu"),
        ("banana", "unknown device 'banana': this machine has cpu"),
        ("mps", "device 'mps' is not supported: this machine has cpu"),
        ("cuda:x", "unknown device 'cuda:x': this machine has cpu"),
    ],
)
def test_a_device_that_is_not_there(refused: Refused, study: str, device: str, part: str) -> None:
    assert part in refused("worker", "digits-dsr", "--device", device)
    assert states(study) == {"WAITING"}


@pytest.mark.parametrize(
    ("gpus", "visible", "part"),
    [
        ("all", "", "--gpus all: this machine shows no GPU; --gpus none uses the CPU"),
        ("9", "", "--gpus 9: this machine shows no GPU (--gpus none uses the CPU)"),
        ("9", "0,1", "--gpus 9: this machine shows GPUs 0, 1"),
        ("0,9", "0,1", "--gpus 0,9: this machine shows GPUs 0, 1"),
        ("banana", "0", "--gpus banana: this machine shows GPUs 0"),
        (",", "0", "--gpus ,: this machine shows GPUs 0"),
        ("", "0", "--gpus : this machine shows GPUs 0"),
    ],
)
def test_gpus_that_are_not_there(
    refused: Refused,
    study: str,
    monkeypatch: pytest.MonkeyPatch,
    gpus: str,
    visible: str,
    part: str,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert part in refused("launch", "digits-dsr", "--gpus", gpus)
    assert states(study) == {"WAITING"}


# Data


def queued(preset: str, *overrides: str) -> str:
    """Put a study into the default storage and return the URL."""
    create_study(load_spec(preset, num_trials=3, overrides=overrides))
    return Home(Path(os.environ["SKDTUNE_HOME"])).storage_url


def refused_by_worker(call: Call, url: str, study: str) -> str:
    """Run a worker that must take no trial."""
    before = content(url)
    code, out, err = call("worker", study, "--device", "cpu")
    assert (code, out) == (2, "")
    assert content(url) == before
    assert states(url) == {"WAITING"}
    return one_line((code, out, err.splitlines(keepends=True)[-1]))


def test_data_that_can_be_seen_to_be_wrong_when_a_study_is_created(
    refused: Refused, call: Call, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    create = ["create-study", "imagefolder-dsr", "--set", f"data.root={root}"]
    code, out, err = call(*create, "--dry-run")
    # A laptop need not have the data; but a wrong path should be noticed.
    missing = f"the data of imagefolder are not on this machine (there is no folder {root})"
    assert (code, err) == (0, f"warning: {missing}: every worker needs them where it runs\n")
    (root / "cat").mkdir(parents=True)
    assert refused(*create).startswith(f"{root} has no folder train (found cat): expected {root}/")
    imagefolder.make(root, train=4, test=0)
    assert "and 6 training images make no second batch of 128: take a" in refused(*create)
    code, out, err = call(*create, "--set", "data.batch_size=3", "--trials", "1")
    assert (code, out.splitlines()[0][:23]) == (0, "created imagefolder-dsr")
    assert err.startswith(
        f"warning: imagefolder has no test images here (there is no folder {root}"
    )
    assert "digits-dsr: method.dsr: compares each batch" in refused(
        "create-study", "digits-dsr", "--set", "data.max_per_class=4"
    )
    root.joinpath("train/dog/more").symlink_to("../cat")
    assert "are one file, which would be of class" in refused(*create, "--name", "another")


def test_a_folder_of_images_that_is_missing(call: Call, tmp_path: Path) -> None:
    root = tmp_path / "images"
    url = queued("imagefolder-dsr", f"data.root={root}")
    message = refused_by_worker(call, url, "imagefolder-dsr")
    assert f"the folder {root} does not exist: set data.root" in message
    assert f"{root}/train/<class>/<image>" in message


def test_a_folder_of_images_that_is_half_copied(call: Call, tmp_path: Path) -> None:
    root = tmp_path / "images"
    url = queued("imagefolder-dsr", f"data.root={root}")
    (root / "train" / "ant").mkdir(parents=True)
    assert "needs at least 2" in refused_by_worker(call, url, "imagefolder-dsr")
    (root / "train" / "bee").mkdir()
    message = refused_by_worker(call, url, "imagefolder-dsr")
    assert f"{root}/train/ant holds 0 images and needs at least 2" in message
    for name in ("ant/1.png", "ant/2.png", "bee/1.png", "bee/2.png"):
        (root / "train" / name).write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    message = refused_by_worker(call, url, "imagefolder-dsr")
    assert f"4 of 4 files in {root}/train cannot be decoded: ant/1.png, ant/2.png" in message
    assert "`skdtune data check imagefolder` says what is wrong with each" in message
    sound = Image.new("RGB", (8, 8))
    for name in ("ant/2.png", "bee/1.png", "bee/2.png"):
        sound.save(root / "train" / name)
    message = refused_by_worker(call, url, "imagefolder-dsr")
    assert f"cannot read the image {root}/train/ant/1.png" in message
    assert "replace this file" in message


def test_cifar_that_is_missing_and_may_not_be_fetched(call: Call, skdtune_home: Path) -> None:
    url = queued("cifar10-dsr", "data.download=false")
    message = refused_by_worker(call, url, "cifar10-dsr")
    assert "no folder cifar-10-batches-py and no file cifar-10-python.tar.gz" in message
    assert f"put it into {skdtune_home / 'data'}" in message
    assert "get https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in message
    assert "set data.download to true" in message


def test_cifar_that_is_missing_without_a_network(
    call: Call, skdtune_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A proxy that is not there stands for a network that is not there.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = queued("cifar100-dsr")
    message = refused_by_worker(call, url, "cifar100-dsr")
    assert "cifar100 is missing" in message
    assert "the download failed" in message
    assert "no folder cifar-100-python and no file cifar-100-python.tar.gz" in message
    assert f"put it into {skdtune_home / 'data'}" in message
    assert "get https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz" in message
    left = [path.name for path in (skdtune_home / "data").iterdir()]
    assert [name for name in left if not name.endswith(".lock")] == []


def test_cifar_whose_folder_is_half_copied(call: Call, skdtune_home: Path) -> None:
    url = queued("cifar10-dsr")
    folder = skdtune_home / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"half")
    message = refused_by_worker(call, url, "cifar10-dsr")
    assert f"{folder / 'data_batch_1'} is damaged or incomplete" in message
    assert f"move the folder {folder} away" in message
    assert (folder / "data_batch_1").read_bytes() == b"half"


def test_cifar_whose_archive_is_half_copied(call: Call, skdtune_home: Path) -> None:
    url = queued("cifar10-dsr")
    archive = skdtune_home / "data" / "cifar-10-python.tar.gz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(__file__, arcname="cifar-10-batches-py/data_batch_1")
    message = refused_by_worker(call, url, "cifar10-dsr")
    assert f"{archive} is damaged or incomplete" in message
    assert "get https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in message
    assert not (archive.parent / "cifar-10-batches-py").exists()


def test_nobody_is_told_to_delete_data() -> None:
    """Data lie in a folder of a person's own as often as in one of skdtune's."""
    for path in sorted((Path(skdtune.__file__).parent / "data").glob("**/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                advice = re.search(r"\b(delete|remove|erase)\b(?! the link)", node.value)
                assert not advice or id(node) in docstrings, f"{path}:{node.lineno}"


def test_a_launch_says_what_its_workers_lack(run_process: Call, tmp_path: Path) -> None:
    url = queued("imagefolder-dsr", f"data.root={tmp_path / 'images'}")
    before = content(url)
    arguments = ("launch", "imagefolder-dsr", "--gpus", "none", "--workers", "1", "-q")
    message = one_line(run_process(*arguments))
    assert f"the folder {tmp_path / 'images'} does not exist" in message
    assert content(url) == before


# Final evaluations


@pytest.fixture
def searched(skdtune_home: Path, finish_trials: Callable[..., None]) -> str:
    """Return the URL of a storage with a search of three trials, one of which waits."""
    url = f"sqlite:///{skdtune_home / 'skdtune.db'}"
    create_study(load_spec("digits-drg", num_trials=3), storage=url)
    finish_trials(url, "digits-drg", 0.25, 0.75)
    return url


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["evaluate", "digits-drgg"], ["no study 'digits-drgg'", "did you mean 'digits-drg'?"]),
        (
            ["evaluate", "digits-drg"],
            ["not finished: 1 of its trials wait", "skdtune launch digits-drg", "--now"],
        ),
        (
            ["evaluate", "digits-drg", "--now", "--top", "3"],
            ["has 2 complete trials, and the best 3 are asked for"],
        ),
        (["evaluate", "digits-drg", "--now", "--name", "a b"], ["name", "received 'a b'"]),
        (
            ["evaluate", "digits-drg", "--now", "--name", "digits-drg"],
            ["'digits-drg' exists and is no final evaluation of digits-drg", "another --name"],
        ),
        (["evaluate", "digits-drg", "--now", "--gpus", "77"], ["77"]),
        (["evaluate", "digits-drg", "--json", "--csv"], ["received --json and --csv", "one of"]),
        (["compare", "digits-drg"], ["has no final evaluation: skdtune evaluate digits-drg"]),
        (["compare", "nothing"], ["there is no study 'nothing'"]),
        (["compare", "digits-drg", "--latex", "--csv"], ["received --latex and --csv"]),
    ],
)
def test_what_cannot_be_evaluated_or_compared(
    refused: Refused, searched: str, arguments: list[str], parts: list[str]
) -> None:
    message = refused(*arguments, url=searched)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ["evaluate", "digits-drg", "--now", "--top", "2"],
            ["evaluates trial 1 of digits-drg, not trials 1, 0", "choose another --name"],
        ),
        (
            ["evaluate", "digits-drg.test"],
            ["is itself the final evaluation of digits-drg: skdtune evaluate digits-drg"],
        ),
        (["best", "digits-drg.test"], ["none is picked: skdtune evaluate digits-drg"]),
        (["best", "digits-drg", "--against", "digits-drg.test"], ["none is picked"]),
        (
            ["compare", "digits-drg"],
            ["'digits-drg.test' has no complete training yet: skdtune launch digits-drg.test"],
        ),
    ],
)
def test_what_an_evaluation_is_not_for(
    call: Call, refused: Refused, searched: str, arguments: list[str], parts: list[str]
) -> None:
    assert call("evaluate", "digits-drg", "--now", "--queue-only")[0] == 0
    message = refused(*arguments, url=searched)
    for part in parts:
        assert part in message


# The dashboard


def test_a_port_in_use(refused: Refused) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused("dashboard", "--port", str(port))
    assert message.startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert message.endswith("choose another --host or --port")


def test_a_host_that_is_not_this_machine(refused: Refused) -> None:
    message = refused("dashboard", "--host", "192.0.2.1", "--port", "0")
    assert message.startswith("cannot listen on 192.0.2.1:0: ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
@pytest.mark.parametrize("password", [None, ""])
def test_an_address_that_others_reach_without_a_password(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, host: str, password: str | None
) -> None:
    if host == "::" and not has_ipv6():
        pytest.skip("no IPv6 here")
    monkeypatch.delenv("SKDTUNE_DASHBOARD_PASSWORD", raising=False)
    if password is not None:
        monkeypatch.setenv("SKDTUNE_DASHBOARD_PASSWORD", password)
    assert refused("dashboard", "--host", host, "--port", "0") == (
        f"others than this machine would reach the dashboard on {host or 'every address'}: set "
        "SKDTUNE_DASHBOARD_PASSWORD to the password it is to ask for"
    )


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_an_allowed_host_that_is_an_address_of_a_page(refused: Refused) -> None:
    message = refused("dashboard", "--port", "0", "--allowed-host", "https://dash.example/")
    assert message.startswith("--allowed-host 'https://dash.example/': expected HOST or HOST:PORT")
