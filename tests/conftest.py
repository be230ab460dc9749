"""What the tests share: a home of their own, real storages, the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pairwise
import pytest
import sqlalchemy as sa

# pgserver asks platformdirs for a runtime folder, which warns where the variable is not set.
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="skdtune-tests-"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The C part is built once for all tests, not once for every home. Fixtures of a module or of the
# session begin before the home of a test, so it is said for all of them here.
NATIVE_FOLDER = os.environ.get("SKDTUNE_NATIVE") or str(
    Path(__file__).parent.parent / ".pytest_cache" / "native"
)
os.environ["SKDTUNE_NATIVE"] = NATIVE_FOLDER

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full``, with which the whole of every product of parameters is tried."""
    parser.addoption("--full", action="store_true", help="run what is marked `full`, too")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that is marked with ``product`` its combinations."""
    pairwise.parametrize(metafunc)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only the full products have, unless they are asked for."""
    if config.getoption("--full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest.fixture(autouse=True)
def skdtune_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a home of its own and hide the person's storage from it."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SKDTUNE_HOME", str(home))
    # What the option sets for the processes that a command starts ends with the test, too.
    monkeypatch.setenv("SKDTUNE_WEIGHTS", "")
    for name in [name for name in os.environ if name.startswith("SKDTUNE_")]:
        if name != "SKDTUNE_HOME":
            monkeypatch.delenv(name)
    monkeypatch.setenv("SKDTUNE_NATIVE", NATIVE_FOLDER)
    return home


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start a real PostgreSQL and return the folder of its socket."""
    import pgserver

    with tempfile.TemporaryDirectory(prefix="skdtune-pg-") as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        yield folder
        server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """Make an empty PostgreSQL database and return its URL."""
    name = f"test_{uuid.uuid4().hex}"
    admin = sa.create_engine(
        f"postgresql+psycopg://postgres:@/postgres?host={postgres_server}",
        isolation_level="AUTOCOMMIT",
    )
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield f"postgresql+psycopg://postgres:@/{name}?host={postgres_server}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def any_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty storage, once of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def run_cli() -> RunCli:
    """Run the command line as a process of its own, as a person does."""

    def run(
        *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "skdtune", *arguments],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def start_training(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Start the training of a method on a network; see ``method_training.py``."""
    # Most tests have no use for torch.
    from method_training import start_in

    return start_in(tmp_path_factory.mktemp("teachers"))


_forbidden: list[str] = []


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _forbidden and event in ("open", "os.scandir", "os.listdir"):
        path = str(arguments[0])
        if any(path.startswith(prefix) for prefix in _forbidden):
            raise AssertionError(f"{path} was opened")


sys.addaudithook(_refuse)


@pytest.fixture
def never_opened() -> Callable[[Path], AbstractContextManager[None]]:
    """Make the interpreter itself refuse to open anything at or below a path."""

    @contextmanager
    def refuse(path: Path) -> Iterator[None]:
        _forbidden.append(str(path))
        try:
            yield
        finally:
            _forbidden.remove(str(path))

    return refuse


FinishTrials = Callable[..., None]


@pytest.fixture
def finish_trials() -> FinishTrials:
    """End the next trials of a study as a worker does, but for the training.

    A number is the value of a complete trial, a mapping its user attributes, whose
    ``test_accuracy`` is the value; None is a trial that failed.
    """
    # Optuna takes a while to import, and most tests have no use for it here.
    from skdtune.describe.space import sample
    from skdtune.queue import leases, trial_writes
    from skdtune.queue.events import EventKind
    from skdtune.queue.history import TrialHistory
    from skdtune.queue.stored_study import load_study
    from skdtune.queue.trial_queue import TrialQueue

    def finish(url: str, study: str, *ends: float | Mapping[str, object] | None) -> None:
        stored = load_study(study, storage=url)
        history = TrialHistory(TrialQueue(stored))
        for end in ends:
            worker = leases.WorkerIdentity(device="cpu")
            claimed = leases.claim(stored.engine, stored.study_id, worker)
            assert claimed is not None, "no trial waits"
            sampler = stored.spec.sampler.build(stored.spec.seed, claimed.number)
            trial = history.begin(claimed, sampler)
            sample(stored.spec.search, trial, stored.spec.fixed_values())
            history.store_params()
            user = dict(end) if isinstance(end, Mapping) else {}
            if end is None:
                user = {"failure_kind": "error", "failure_reason": "ValueError: a broken cable"}
            trial_writes.finish(
                stored.engine,
                claimed,
                leases.TrialState.FAIL if end is None else leases.TrialState.COMPLETE,
                EventKind.ERROR if end is None else EventKind.COMPLETE,
                value=user.get("test_accuracy", end if isinstance(end, float) else None),
                epochs=1,
                user=user,
            )
        stored.close()

    return finish
