"""The services of docker-compose.yml, in their order, as plain processes on a real PostgreSQL."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

ROOT = Path(__file__).parents[2]
STORAGE = ROOT / "storage"

#: What `.env` holds.
SETTINGS = {
    "SKDTUNE_DB_PASSWORD": "db-0123456789abcdef",
    "SKDTUNE_DB_ADMIN_PASSWORD": "admin-0123456789abcdef",
    "SKDTUNE_DASHBOARD_PASSWORD": "dashboard-0123456789abcdef",
    "SKDTUNE_STUDY": "tiny",
}

# The whole story is one fixture of the first test that needs it.
pytestmark = pytest.mark.timeout(480)

Start = Callable[..., "subprocess.Popen[bytes]"]
Eventually = Callable[..., Any]


def postgres_program(name: str) -> Path:
    """Return a program of the PostgreSQL that the tests bring along."""
    spec = importlib.util.find_spec("pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin" / name


@dataclass
class Postgres:
    """The service `postgres`: our settings, our role, and a password that is asked for."""

    socket_dir: Path
    pgdata: Path

    def run(self, name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs on this server."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "SKD"))}
        return subprocess.run(
            [postgres_program(name), "-h", str(self.socket_dir), *arguments],
            env={**environment, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database, as its administrator."""
        with psycopg.connect(
            host=str(self.socket_dir), user="postgres", dbname="skdtune"
        ) as connection:
            return connection.execute(query.encode()).fetchall()

    def dump(self) -> str:
        """Write out everything the database holds."""
        dumped = self.run("pg_dump", "-U", "postgres", "skdtune")
        assert dumped.returncode == 0, dumped.stderr
        # Newer versions put a random word around what they dump.
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", dumped.stdout)

    def log(self) -> str:
        """Return the server's log."""
        return (self.pgdata / "log").read_text()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """Start the server with the settings, the role and the database of the service."""
    # Not below pytest's own folder, which every start of pytest closes to the server's user.
    with tempfile.TemporaryDirectory(prefix="skdtune-pg-") as folder:
        yield from run_postgres(Path(folder) / "data")


def run_postgres(pgdata: Path) -> Iterator[Postgres]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns at import where XDG_RUNTIME_DIR is not set
        from pgserver.postgres_server import get_server
    get_server(pgdata).cleanup()
    settings = (STORAGE / "postgres" / "postgresql.conf").read_text()
    (pgdata / "postgresql.conf").write_text(settings)
    # As in the image: the administrator comes in over the socket, everybody else needs a password.
    (pgdata / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    server = get_server(pgdata)
    try:
        socket_dir = server.get_postmaster_info().socket_dir
        assert socket_dir is not None
        started = Postgres(socket_dir, pgdata)
        made = started.run(
            "psql",
            *("-q", "--no-psqlrc", "-U", "postgres", "-d", "postgres"),
            *("-f", str(STORAGE / "postgres" / "init.sql")),
            SKDTUNE_DB_PASSWORD=SETTINGS["SKDTUNE_DB_PASSWORD"],
        )
        assert (made.returncode, made.stdout + made.stderr) == (0, "")
        yield started
    finally:
        server.cleanup()


@dataclass
class Compose:
    """Starts services of the compose file on this machine instead of in containers."""

    services: dict[str, dict[str, Any]]
    postgres: Postgres
    folder: Path
    start_process: Start
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    command_lines: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The volume `home`."""
        return self.folder / "home"

    def order(self) -> list[str]:
        """Return all services, each behind those that it depends on."""
        graph = {name: service.get("depends_on", {}) for name, service in self.services.items()}
        return list(TopologicalSorter(graph).static_order())

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a service with its own command, or with the words of a person."""
        command = list(words) or [self._filled_in(word) for word in self.services[name]["command"]]
        environment = {
            variable: self._on_this_machine(self._filled_in(value))
            for variable, value in self.services[name]["environment"].items()
        }
        process = self.start_process(
            *(self._on_this_machine(word) for word in command),
            log=self.log(name),
            env={
                **environment,
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                # Else the workers build the C part in the volume, which takes seconds.
                "SKDTUNE_NATIVE": os.environ["SKDTUNE_NATIVE"],
            },
            clean=True,
        )
        if hasattr(os, "sched_setaffinity"):
            # `workers-cpu` starts a worker for each core it may use: two are enough here.
            cores = sorted(os.sched_getaffinity(0))[:2]
            os.sched_setaffinity(process.pid, cores)
        self.running[name] = process
        return process

    def options(self, name: str) -> list[str]:
        """Return the options of a service's command, behind the study that it names."""
        command: list[str] = self.services[name]["command"]
        return command[2:]

    def log(self, name: str) -> Path:
        """Return the file of what a service said."""
        return self.folder / f"{name}.log"

    def stop(self, name: str) -> int:
        """Stop a service as `docker compose stop` does; return its exit code."""
        number = signal.Signals[self.services[name].get("stop_signal", "SIGTERM")]
        self.running[name].send_signal(number)
        return self.running[name].wait(timeout=60)

    def _filled_in(self, text: str) -> str:
        """Substitute the variables of `.env`."""
        return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: SETTINGS[found[1]], text)

    def _on_this_machine(self, text: str) -> str:
        """Put this machine's addresses in the place of the containers'."""
        return {
            "postgresql+psycopg://skdtune@postgres:5432/skdtune": (
                f"postgresql+psycopg://skdtune@/skdtune?host={self.postgres.socket_dir}"
            ),
            "/var/lib/skdtune": str(self.home),
            "8080": str(self.port),
        }.get(text, text)


@pytest.fixture(scope="module")
def compose(postgres: Postgres, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """Read the compose file."""
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    folder = tmp_path_factory.mktemp("service")
    (folder / "home").mkdir()
    return Compose(content["services"], postgres, folder, start, free_port())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def ask(compose: Compose, path: str) -> Any:
    """Ask the dashboard's API, with its password; None while it is not there yet."""
    request = urllib.request.Request(f"http://127.0.0.1:{compose.port}{path}")
    credentials = f"me:{SETTINGS['SKDTUNE_DASHBOARD_PASSWORD']}".encode()
    request.add_header("Authorization", f"Basic {base64.b64encode(credentials).decode()}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return json.loads(response.read())
    except ConnectionError:
        return None
    except OSError as error:
        if isinstance(getattr(error, "reason", None), ConnectionError):
            return None
        raise


@dataclass
class Story:
    """What was seen from the first start of the service to its stop."""

    first_run: str
    """What the workers said on a study that they finished."""

    trials: list[dict[str, Any]]
    """Its trials, as the dashboard then showed them."""

    dumps: list[str]
    """The database's content before and after `init` and workers were started once more."""

    said_again: list[str]
    """What these two said."""

    processes: list[str]
    """All command lines of the machine while workers trained."""

    workers_left: set[int]
    """Those that lived on when their launcher was stopped."""

    stopped: str
    """What the workers said when they were stopped in the middle of a study."""

    states_after_stop: dict[str, int]
    """States of its trials then."""

    exit_codes: dict[str, int]
    """How the stopped services ended."""


@pytest.fixture(scope="module")
def story(compose: Compose, tiny_study: Path, eventually: Eventually) -> Story:
    """Start the services in their order, let them finish a study, stop them in another."""
    # docker compose up
    wait_until_healthy(compose, eventually)
    run_to_its_end(compose, "init")
    dashboard = compose.start("dashboard")
    dashboard_log = compose.log("dashboard")
    eventually(lambda: ask(compose, "/api/studies"), process=dashboard, log=dashboard_log)

    # docker compose run --rm driver create-study, docker compose up workers-cpu
    run_to_its_end(compose, "driver", "create-study", str(tiny_study))
    first_run = run_to_its_end(compose, "workers-cpu")
    trials = ask(compose, "/api/studies/1")["trials"]

    # Started once more, as after a restart of the machine.
    before = compose.postgres.dump()
    said_again = [run_to_its_end(compose, name) for name in ("init", "workers-cpu")]
    after = compose.postgres.dump()

    # docker compose stop, in the middle of a study that would take hours.
    run_to_its_end(
        compose,
        "driver",
        *("create-study", str(tiny_study), "--name", "long", "--trials", "50"),
        *("--set", "budget.epochs=1000", "--set", "pruner.name=none"),
    )
    workers = compose.start("workers-cpu", "launch", "long", *compose.options("workers-cpu"))
    eventually(
        lambda: any(t["intermediate_values"] for t in ask(compose, "/api/studies/2")["trials"]),
        process=workers,
        log=compose.log("workers-cpu"),
    )
    processes = visible_processes()
    ours = {pid for pid, line in processes.items() if " worker long " in line}
    assert ours, "no worker is to be seen"
    exit_codes = {"workers-cpu": compose.stop("workers-cpu")}
    left = ours & visible_processes().keys()
    states = Counter(
        row[0] for row in compose.postgres.rows("SELECT state FROM trials WHERE study_id = 2")
    )
    exit_codes["dashboard"] = compose.stop("dashboard")

    return Story(
        first_run=first_run,
        trials=trials,
        dumps=[before, after],
        said_again=said_again,
        processes=list(processes.values()),
        workers_left=left,
        stopped=compose.log("workers-cpu").read_text(),
        states_after_stop=dict(states),
        exit_codes=exit_codes,
    )


def run_to_its_end(compose: Compose, name: str, *words: str) -> str:
    """Run a service to its end, which must be a good one; return all that it ever said."""
    process = compose.start(name, *words)
    code = process.wait(timeout=120)
    said = compose.log(name).read_text()
    assert code == 0, said
    return said


def visible_processes() -> dict[int, str]:
    """Return the command lines that every user of the machine can read."""
    listed = subprocess.check_output(["ps", "-A", "-o", "pid=,args="], text=True)
    lines = (line.split(None, 1) for line in listed.splitlines())
    return {int(line[0]): line[-1] for line in lines}


def wait_until_healthy(compose: Compose, eventually: Eventually) -> None:
    """Ask as the health check of the compose file does, until the answer is yes."""
    kind, program, *options = compose.services["postgres"]["healthcheck"]["test"]
    assert kind == "CMD"
    where = options.index("-h")
    del options[where : where + 2]
    eventually(lambda: compose.postgres.run(program, *options).returncode == 0)


# From the first start to the stop


def test_dependencies_lead_from_the_database_to_the_workers(compose: Compose) -> None:
    order = compose.order()

    assert order[:2] == ["postgres", "init"]
    assert {"dashboard", "driver", "workers-cpu"} <= set(order[2:])


def test_workers_finish_the_study_that_the_driver_made(story: Story) -> None:
    assert re.search(r"^tiny: \d complete, \d pruned, 0 failed$", story.first_run, re.MULTILINE)


def test_dashboard_shows_every_trial_finished(story: Story) -> None:
    states = [trial["state"] for trial in story.trials]

    assert len(states) == 4
    assert set(states) <= {"Complete", "Pruned"}
    assert states[0] == "Complete"


def test_starting_again_changes_nothing(story: Story) -> None:
    before, after = story.dumps

    assert "COPY public.trials" in before
    assert "digits, a narrow network" in before
    assert after == before
    init, workers = story.said_again
    assert init.count("is ready") == 2
    assert workers.endswith("tiny is finished already: skdtune best tiny\n")


def test_stopped_workers_give_their_trials_back(story: Story, compose: Compose) -> None:
    assert story.exit_codes["workers-cpu"] == 0
    assert story.states_after_stop == {"WAITING": 50}
    assert story.stopped.endswith("stopped; 50 trials wait: skdtune launch long\n")
    assert story.workers_left == set()
    logs = (compose.home / "logs").glob("long-*/launch-*/worker-*.log")
    said = "".join(log.read_text() for log in logs)
    assert re.search(r"trial \d+ was given back to the queue", said)


def test_stopped_dashboard_ends_well(story: Story) -> None:
    assert story.exit_codes["dashboard"] == 0


def test_no_process_shows_a_password_or_a_traceback(story: Story, compose: Compose) -> None:
    logs = [*compose.folder.glob("*.log"), *compose.home.rglob("*.log")]
    names = {log.name for log in logs}
    services = {"init.log", "dashboard.log", "driver.log", "workers-cpu.log"}
    assert services | {"worker-0.log"} <= names
    written = {str(log): log.read_text() for log in logs}
    written["PostgreSQL"] = compose.postgres.log()
    written["process list"] = "\n".join(story.processes)

    for where, text in written.items():
        assert text.strip(), f"{where} is empty"
        assert "Traceback" not in text, where
        for name in ("SKDTUNE_DB_PASSWORD", "SKDTUNE_DASHBOARD_PASSWORD"):
            assert SETTINGS[name] not in text, f"{name} is in {where}"


# Who may connect


def test_a_wrong_password_is_refused_without_showing_it(compose: Compose) -> None:
    url = f"postgresql+psycopg://skdtune@/skdtune?host={compose.postgres.socket_dir}"
    ended = subprocess.run(
        [sys.executable, "-m", "skdtune", "storage", "init", "--storage", url],
        env={**os.environ, "PGPASSWORD": "wrong-0123456789abcdef"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "password authentication failed" in line
    assert "wrong-0123456789abcdef" not in line


def test_the_right_password_is_needed(compose: Compose) -> None:
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(
            host=str(compose.postgres.socket_dir), user="skdtune", dbname="skdtune"
        ).close()
