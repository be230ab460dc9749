from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from skdtune.describe.presets import load_spec
from skdtune.queue import events, leases
from skdtune.queue.stored_study import StoredStudy, create_study, load_study

#: Far more than anything here takes; only a hanging process is ended by it.
PATIENCE_S = 90.0

TINY = (
    "data.max_per_class=20",
    "data.batch_size=32",
    "model.width=4",
    "model.precision=float32",
    "budget.epochs=2",
    "pruner={name: none}",
)


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain until {what}")


@dataclass
class Process:
    """A real process; signals reach it and nothing else."""

    pid: int
    folder: Path
    _ask: Callable[[dict[str, Any]], Any]

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return the exit code, negative for a signal."""
        code = self._ask({"do": "wait", "pid": self.pid, "seconds": PATIENCE_S})
        assert code is not None, f"still running: {self.err}"
        return int(code)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()


class Starter:
    """Starts ``skdtune`` with arguments, or any code, in an empty folder with an empty home."""

    def __init__(self, zygote: subprocess.Popen[str], folder: Path) -> None:
        self._zygote = zygote
        self._folder = folder

    def __call__(
        self, *arguments: str, code: str = "", env: Mapping[str, str] | None = None
    ) -> Process:
        folder = self._folder / uuid.uuid4().hex
        (folder / "cwd").mkdir(parents=True)
        environment = {
            "PATH": os.environ["PATH"],
            "SKDTUNE_HOME": str(folder / "home"),
            "OMP_NUM_THREADS": "1",
            # Where the package that is tested is not the one that is installed.
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
            # Else every process builds the C part for its own home, which takes seconds.
            "SKDTUNE_NATIVE": os.environ["SKDTUNE_NATIVE"],
            **(env or {}),
        }
        request = {
            "do": "start",
            "arguments": arguments,
            "code": code,
            "environment": environment,
            "cwd": str(folder / "cwd"),
            "out": str(folder / "out"),
            "err": str(folder / "err"),
        }
        return Process(self._ask(request), folder, self._ask)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(json.dumps(request) + "\n")
        self._zygote.stdin.flush()
        return json.loads(self._zygote.stdout.readline())


@pytest.fixture(scope="session")
def zygote() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("zygote.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)


@pytest.fixture
def start(zygote: subprocess.Popen[str], tmp_path: Path) -> Starter:
    return Starter(zygote, tmp_path / "processes")


@pytest.fixture
def run_cli(
    zygote: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line to its end, in the home of the test, without the imports."""
    # Not in the folder of the test, which may look at what a command leaves there.
    start = Starter(zygote, tmp_path_factory.mktemp("commands"))

    def run(
        *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, env={**os.environ, **(env or {})})
        code = process.wait()
        return subprocess.CompletedProcess(arguments, code, process.out, process.err)

    return run


class Search:
    """A study of a test, and what the storage says of it."""

    def __init__(self, url: str, stored: StoredStudy) -> None:
        self.url = url
        self.stored = stored
        self.name = stored.spec.name

    @property
    def trials(self) -> list[FrozenTrial]:
        # Past Optuna's cache, which never forgets a trial that was taken away.
        return self.stored.storage.get_all_trials(self.stored.study_id)

    @property
    def states(self) -> list[str]:
        return [trial.state.name for trial in self.trials]

    def curve(self, number: int) -> dict[int, float]:
        return self.trials[number].intermediate_values

    def attempt(self, number: int) -> int:
        """Count the claims of a trial that is held now."""
        for holder in self.holders:
            if holder["number"] == number:
                return int(holder["attempt"])
        return 0

    def events(self, number: int) -> list[events.Event]:
        """List what happened to a trial."""
        trial_id = self.trials[number]._trial_id
        return events.story(self.stored.engine, self.stored.study_id, trial_id)

    def story(self, number: int) -> list[str]:
        """List the kinds of what happened to a trial."""
        return [event.kind for event in self.events(number)]

    @property
    def holders(self) -> list[dict[str, Any]]:
        return leases.holders(self.stored.engine, self.stored.study_id)

    def wait_for_epochs(self, number: int, epochs: int = 2) -> None:
        """Wait until a trial has finished some epochs and still trains."""

        def trains() -> bool:
            trial = self.trials[number]
            assert not trial.state.is_finished(), "it was over before it could be disturbed"
            running = trial.state is TrialState.RUNNING
            return running and len(trial.intermediate_values) >= epochs

        wait_until(trains, f"trial {number} trains")

    def wait_for_states(self, *states: str) -> None:
        wait_until(lambda: self.states == list(states), f"the trials are {states}")


MakeSearch = Callable[..., Search]


@contextlib.contextmanager
def searches() -> Iterator[MakeSearch]:
    opened: list[StoredStudy] = []

    def make(
        url: str,
        *overrides: str,
        preset: str = "digits-baseline",
        name: str = "tiny",
        num_trials: int = 3,
    ) -> Search:
        spec = load_spec(preset, overrides=[*TINY, *overrides], name=name, num_trials=num_trials)
        create_study(spec, storage=url)
        opened.append(load_study(name, storage=url))
        return Search(url, opened[-1])

    yield make
    for stored in opened:
        stored.close()


@pytest.fixture
def make_search() -> Iterator[MakeSearch]:
    """Create a tiny study in a storage and open it."""
    with searches() as make:
        yield make


@pytest.fixture(scope="module")
def module_search() -> Iterator[MakeSearch]:
    with searches() as make:
        yield make


StartWorker = Callable[..., Process]

#: In their second epoch, trials wait until the test says go: no training has to be long for them
#: to be still there, however slow or fast the machine is.
HOLD = """
import pathlib, time
from skdtune.training.trainer import Trainer
train = Trainer._train_epoch
def hold(trainer, epoch, reporter):
    while epoch == 1 and not pathlib.Path("go").exists():
        time.sleep(0.02)
    return train(trainer, epoch, reporter)
Trainer._train_epoch = hold
"""


@dataclass
class HeldWorker(Process):
    """A worker whose trial trains until it is let go."""

    def let_go(self) -> None:
        (self.folder / "cwd" / "go").touch()


def worker_starter(start: Starter) -> StartWorker:
    def begin(
        search: Search, *arguments: str, code: str = "", env: Mapping[str, str] | None = None
    ) -> Process:
        command = ["worker", search.name, "--storage", search.url, "--device", "cpu"]
        return start(*command, *arguments, code=code, env=env)

    return begin


@pytest.fixture
def start_worker(start: Starter) -> StartWorker:
    """Start a worker that is told nothing but study and storage."""
    return worker_starter(start)


@pytest.fixture
def start_held_worker(start_worker: StartWorker) -> Callable[..., HeldWorker]:
    """Start a worker whose trials wait in their second epoch until it is let go."""

    def begin(search: Search, *arguments: str, env: Mapping[str, str] | None = None) -> HeldWorker:
        worker = start_worker(search, *arguments, code=HOLD, env=env)
        return HeldWorker(worker.pid, worker.folder, worker._ask)

    return begin


@pytest.fixture(scope="module")
def module_start(
    zygote: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory
) -> Starter:
    return Starter(zygote, tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def module_start_worker(module_start: Starter) -> StartWorker:
    return worker_starter(module_start)


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
