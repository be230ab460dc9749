"""A study under faults: does it end as if nothing had happened?

    python benchmarks/chaos.py [--storage postgres|sqlite] [--trials 200] [--workers 6] [--json]

Real workers train a real, tiny network on scikit-learn's digits, while a random one is killed
(SIGKILL or SIGTERM) every second or two, if an epoch was finished meanwhile. On PostgreSQL the
server is stopped in immediate mode and started again ten times, and the network of one worker is
cut for longer than its lease while it trains. The database is frozen for ten seconds: all
processes of PostgreSQL are stopped, or another process holds SQLite's write lock. One worker is
frozen for longer than its lease and goes on; one checkpoint is damaged. Afterwards every trial is
trained again without faults, in this process.

Prints one table and ends with 1 if any line of it fails. Workers are forked from a process that
has imported torch, so that the run is about faults and not about imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
import torch

import skdtune.worker.worker  # what is imported here, forked workers need not import
from skdtune.__main__ import main as skdtune_main
from skdtune.data.store import DataStore
from skdtune.describe.epoch_report import EpochReport, Verdict
from skdtune.describe.presets import load_spec
from skdtune.home import Home
from skdtune.queue import events, leases, schema
from skdtune.queue.patience import is_outage
from skdtune.queue.stored_study import StoredStudy, create_study, load_study
from skdtune.worker.objective import build_trainer

LEASE_S = 4.0
#: Seconds for which one worker is frozen, and another one is cut off.
AWAY_S = 2.5 * LEASE_S
STUDY = "chaos"
SETTINGS = (
    "data.max_per_class=40",
    "data.batch_size=32",
    "model.width=4",
    "model.precision=float32",
    "budget.epochs=5",
    "pruner={name: none}",
    "faults.retries.lost=20",
)

#: Lines that say which faults there were; the others say that they did no harm.
FAULTS = (
    "SIGKILL, SIGTERM",
    "database restarts (immediate)",
    "workers frozen for 2.5 leases",
    "workers cut off for 2.5 leases",
    "database freezes, seconds",
    "checkpoints damaged, noticed",
    "trials that went on from a checkpoint",
)


@dataclass
class Plan:
    """What shall happen."""

    storage: str
    trials: int
    workers: int
    restarts: int
    seed: int
    freeze_s: float
    pause_s: tuple[float, float] = (1.0, 2.0)


@dataclass
class Happened:
    """What did happen."""

    kills: int = 0
    terms: int = 0
    restarts: int = 0
    frozen: int = 0
    cut: int = 0
    freezes: int = 0
    damaged: int = 0
    exits: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0


class Postgres:
    """A real server in a folder of its own."""

    def __init__(self, folder: str) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp())
        import pgserver

        self._server = pgserver.get_server(folder)
        self.url = f"postgresql+psycopg://postgres:@/postgres?host={folder}"

    def restart(self, away_s: float) -> None:
        """Stop it in immediate mode, as a crash does, and start it after a while."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
            time.sleep(0.02)
        time.sleep(away_s)
        for _ in range(5):
            # Starting may take longer than pgserver waits; what runs by then is found.
            with contextlib.suppress(Exception):
                self._server.ensure_postgres_running()
                return
        raise RuntimeError("PostgreSQL did not start again")

    def freeze(self, seconds: float) -> None:
        """Stop all its processes: it accepts connections, and answers nothing."""
        postmaster = psutil.Process(self._server.get_pid())
        # This one first: it starts the others.
        postmaster.suspend()
        stopped = [postmaster, *postmaster.children(recursive=True)]
        for process in stopped[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        time.sleep(seconds)
        for process in reversed(stopped):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def stop(self) -> None:
        self._server.cleanup()


def _state(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


class Sqlite:
    """A database file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.url = f"sqlite:///{file}"

    def freeze(self, seconds: float) -> None:
        """Hold the lock that every transaction needs, from another process."""
        code = (
            "import sqlite3, sys, time\n"
            "database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n"
            "database.execute('BEGIN IMMEDIATE')\n"
            "time.sleep(float(sys.argv[2]))\n"
            "database.execute('ROLLBACK')\n"
        )
        subprocess.run([sys.executable, "-c", code, str(self._file), str(seconds)], check=True)


class Line:
    """The network between one worker and PostgreSQL: a process that forwards, until it is cut."""

    def __init__(self, socket_path: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            context = multiprocessing.get_context("fork")
            self._process = context.Process(
                target=_forward, args=(listener, socket_path), daemon=True
            )
            self._process.start()
        self.url = f"postgresql+psycopg://postgres:@127.0.0.1:{port}/postgres"

    def cut(self) -> None:
        """Forward nothing any more; nobody at either end is told."""
        os.kill(self._process.pid or 0, signal.SIGSTOP)

    def heal(self) -> None:
        """Forward what was held back, and all that comes."""
        os.kill(self._process.pid or 0, signal.SIGCONT)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _forward(listener: socket.socket, socket_path: str) -> None:
    while True:
        worker, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(socket_path)
        except OSError:
            # It is being restarted.
            worker.close()
            server.close()
            continue
        for source, sink in ((worker, server), (server, worker)):
            threading.Thread(target=_pour, args=(source, sink), daemon=True).start()


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            sink.sendall(content)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    source.close()


class Crew:
    """The workers: forked, killed, replaced. One of them has a line of its own to the database."""

    def __init__(
        self, url: str, folder: Path, size: int, happened: Happened, line: Line | None
    ) -> None:
        self._url = url
        self._folder = folder
        self._size = size
        self._happened = happened
        self._line = line
        self._context = multiprocessing.get_context("fork")
        self._number = 0
        self._distant: multiprocessing.process.BaseProcess | None = None
        self.members: list[multiprocessing.process.BaseProcess] = []
        self.frozen: int | None = None
        self.cut_off: int | None = None

    def fill(self) -> None:
        """Replace who is gone."""
        for member in [m for m in self.members if not m.is_alive()]:
            self._happened.exits[member.exitcode or 0] += 1
            self.members.remove(member)
        while len(self.members) < self._size:
            log = self._folder / f"worker-{self._number}.log"
            self._number += 1
            line = None if self._distant in self.members else self._line
            url = line.url if line else self._url
            member = self._context.Process(target=_work, args=(url, self._folder, log))
            member.start()
            self.members.append(member)
            if line:
                self._distant = member

    @property
    def able(self) -> list[int]:
        """The workers that are neither frozen nor cut off."""
        away = (self.frozen, self.cut_off)
        return [m.pid for m in self.members if m.pid is not None and m.pid not in away]

    def cut(self, busy: set[int]) -> None:
        """Cut the line of the worker that has one, if it trains."""
        pid = None if self._distant is None else self._distant.pid
        if self._line is not None and pid in busy and pid in self.able:
            self._line.cut()
            self.cut_off = pid
            self._happened.cut += 1

    def heal(self) -> None:
        """Mend the line."""
        if self._line is not None:
            self._line.heal()
        self.cut_off = None

    def strike(self, chance: random.Random) -> None:
        """Kill one worker that is neither frozen nor cut off, or ask it to leave."""
        able = self.able
        if able:
            number = chance.choice((signal.SIGKILL, signal.SIGTERM))
            os.kill(chance.choice(able), number)
            if number is signal.SIGKILL:
                self._happened.kills += 1
            else:
                self._happened.terms += 1

    def end(self) -> None:
        if self.frozen is not None:
            os.kill(self.frozen, signal.SIGCONT)
        self.heal()
        for member in self.members:
            member.join(timeout=60)
            if member.is_alive():
                member.kill()
                member.join()
            self._happened.exits[member.exitcode or 0] += 1


def _work(url: str, folder: Path, log: Path) -> None:
    os.setsid()
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ |= {
        "SKDTUNE_HOME": str(folder / "home"),
        "SKDTUNE_LEASE_SECONDS": str(LEASE_S),
        "SKDTUNE_GRACE_SECONDS": "5",
    }
    torch.set_num_threads(1)
    code = 0
    try:
        skdtune_main(["worker", STUDY, "--storage", url, "--device", "cpu", "-v"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(plan: Plan, folder: Path, server: Postgres | Sqlite, line: Line | None) -> Happened:
    """Let the study run under faults to its end."""
    spec = load_spec("digits-drg-dsr", overrides=SETTINGS, name=STUDY, num_trials=plan.trials)
    create_study(spec, storage=server.url)
    happened, chance = Happened(), random.Random(plan.seed)
    crew = Crew(server.url, folder, plan.workers, happened, line)
    stored = load_study(STUDY, storage=server.url)
    started, epochs_before = time.monotonic(), 0
    faults = _faults(plan, crew, server, stored, folder, happened, chance)
    try:
        while (done := _num_finished(stored)) < plan.trials:
            crew.fill()
            print(f"\r{done}/{plan.trials} trials, {happened}", end="", file=sys.stderr)
            for _ in faults(done):
                pass
            # Nobody is struck before an epoch was finished: a busy machine would never end.
            if (epochs := _num_epochs(stored)) != epochs_before:
                epochs_before = epochs
                crew.strike(chance)
            time.sleep(chance.uniform(*plan.pause_s))
        happened.seconds = time.monotonic() - started
    finally:
        print(file=sys.stderr)
        crew.end()
        stored.close()
    return happened


def _faults(
    plan: Plan,
    crew: Crew,
    server: Postgres | Sqlite,
    stored: StoredStudy,
    folder: Path,
    happened: Happened,
    chance: random.Random,
) -> Callable[[int], Iterator[None]]:
    """Return what makes the rare faults happen, spread over the study."""
    restart_at = [
        round((k + 0.5) * plan.trials / plan.restarts * 0.85) for k in range(plan.restarts)
    ]
    frozen_until = cut_until = 0.0

    def happen(done: int) -> Iterator[None]:
        nonlocal frozen_until, cut_until
        if isinstance(server, Postgres) and restart_at and done >= restart_at[0]:
            restart_at.pop(0)
            server.restart(chance.uniform(0.5, 3.0))
            happened.restarts += 1
            yield
        if not happened.frozen and done >= plan.trials * 0.2:
            crew.frozen = _freeze_a_busy_worker(stored, crew)
            if crew.frozen is not None:
                happened.frozen += 1
                frozen_until = time.monotonic() + AWAY_S
            yield
        if crew.frozen is not None and time.monotonic() > frozen_until:
            os.kill(crew.frozen, signal.SIGCONT)
            crew.frozen = None
            yield
        if not happened.damaged and done >= plan.trials * 0.4:
            happened.damaged += _damage_a_checkpoint(stored, crew, folder, happened)
            yield
        if not happened.freezes and done >= plan.trials * 0.5:
            server.freeze(plan.freeze_s)
            happened.freezes += 1
            yield
        if not happened.cut and done >= plan.trials * 0.6:
            crew.cut({holder["pid"] for holder in _holders(stored)})
            cut_until = time.monotonic() + AWAY_S
            yield
        if crew.cut_off is not None and time.monotonic() > cut_until:
            crew.heal()
            yield

    return happen


def _holders(stored: StoredStudy) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _patiently(
        lambda: leases.holders(stored.engine, stored.study_id)
    )
    return found


def _freeze_a_busy_worker(stored: StoredStudy, crew: Crew) -> int | None:
    for holder in _holders(stored):
        if holder["pid"] in crew.able:
            os.kill(holder["pid"], signal.SIGSTOP)
            return int(holder["pid"])
    return None


def _damage_a_checkpoint(stored: StoredStudy, crew: Crew, folder: Path, happened: Happened) -> int:
    """Kill a worker between two epochs and flip a byte of the checkpoint that it left."""
    for holder in _holders(stored):
        if holder["pid"] not in crew.able:
            continue
        os.kill(holder["pid"], signal.SIGKILL)
        happened.kills += 1
        files = sorted(folder.glob(f"home/checkpoints/*/trial-{holder['number']:05d}/*.ckpt"))
        if files:
            content = bytearray(files[-1].read_bytes())
            content[len(content) // 2] ^= 1
            files[-1].write_bytes(content)
            return 1
    return 0


def _num_finished(stored: StoredStudy) -> int:
    counts = _patiently(lambda: leases.counts(stored.engine, stored.study_id))
    return sum(number for state, number in counts.items() if state.is_finished())


def _num_epochs(stored: StoredStudy) -> int:
    def count() -> int:
        with stored.engine.connect() as connection:
            query = sa.select(sa.func.count()).select_from(schema.steps)
            return int(connection.execute(query).scalar_one())

    number: int = _patiently(count)
    return number


def _patiently(call: Callable[[], Any]) -> Any:
    while True:
        try:
            return call()
        except Exception as error:
            if not is_outage(error):
                raise
            time.sleep(0.2)


class Silent:
    """Collects what a training without faults reports."""

    def __init__(self) -> None:
        self.curve: list[float] = []

    def epoch_finished(self, report: EpochReport) -> Verdict:
        self.curve.append(report.val_accuracy)
        return Verdict.CONTINUE

    def interrupted(self, progress: float) -> bool:
        return False


_store: DataStore | None = None


def train_again(job: tuple[str, str, int, dict[str, Any]]) -> list[float]:
    """Train one trial without faults, from the parameters that the study stored."""
    global _store
    home, spec_json, number, params = job
    torch.set_num_threads(1)
    if _store is None:
        at = Home(Path(home))
        _store = DataStore(at.data, at.cache, torch.device("cpu"))
    from skdtune.describe.spec import spec_from_json

    config = spec_from_json(spec_json).trial_config(params, number)
    reporter = Silent()
    build_trainer(config, _store.get(config.data)).run(reporter)
    return reporter.curve


def check(plan: Plan, url: str, folder: Path, happened: Happened) -> list[dict[str, Any]]:
    """Compare what the storage holds with what a study without faults would hold."""
    stored = load_study(STUDY, storage=url)
    trials = stored.study.get_trials()
    states = Counter(trial.state.name for trial in trials)
    ends = _ends(stored)
    with stored.engine.connect() as connection:
        num_leases = connection.scalar(sa.select(sa.func.count()).select_from(schema.leases))
        damaged_said = connection.scalar(
            sa.select(sa.func.count()).where(
                schema.events.c.kind == events.EventKind.NOTED.value,
                schema.events.c.detail.contains("ckpt"),
            )
        )
    jobs = [
        (str(folder / "home"), stored.spec.to_json(), trial.number, dict(trial.params))
        for trial in trials
    ]
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        curves = pool.map(train_again, jobs, chunksize=4)
    # In the order of the epochs: a database returns rows in any order.
    found = [[v for _, v in sorted(trial.intermediate_values.items())] for trial in trials]
    unequal = [
        trial.number
        for trial, ours, theirs in zip(trials, found, curves, strict=True)
        if ours != theirs or trial.value != theirs[-1]
    ]
    for number in unequal:
        print(f"trial {number}: {found[number]}, not {curves[number]}", file=sys.stderr)
        for event in events.story(stored.engine, stored.study_id, trials[number]._trial_id):
            print(f"    {event}", file=sys.stderr)
    equal = plan.trials - len(unequal)
    logs = "\n".join(path.read_text(errors="replace") for path in folder.glob("worker-*.log"))
    # A worker that starts while the database is down ends with one line, and is started again.
    # One that is killed while it says so leaves half of it.
    errors = re.findall(r"^Traceback .*\n(?: .*\n)*(\S.*)\n", logs, re.MULTILINE)
    tracebacks = sum(not error.startswith("skdtune.errors.StorageError") for error in errors)
    begun = len(re.findall(r"trial \d+ epoch \d+/\d+ starts", logs))
    needed = plan.trials * stored.spec.budget.epochs
    blows = happened.kills + happened.terms + happened.frozen + happened.damaged
    # Who is cut off trains on, while others go on from the checkpoint that it left.
    blows += happened.cut * stored.spec.budget.epochs
    resumed = sum(event == "resumed" for event in _kinds(stored))
    wrong_exits = {code: n for code, n in happened.exits.items() if code not in (0, 2, -9, -15)}
    stored.close()
    rows: list[tuple[str, str, bool]] = [
        ("trials asked for, finished", f"{plan.trials}, {states['COMPLETE']}",
         dict(states) == {"COMPLETE": plan.trials}),
        ("trials that ended twice, or never", str(sum(n != 1 for n in ends.values())),
         len(ends) == plan.trials and set(ends.values()) == {1}),
        ("curves and values bit-equal to a run without faults", f"{equal} of {plan.trials}",
         equal == plan.trials),
        ("trials still running", str(states["RUNNING"]), states["RUNNING"] == 0),
        ("orphaned leases", str(num_leases), num_leases == 0),
        ("checkpoints left behind",
         str(_num_checkpoints(folder)), _num_checkpoints(folder) == 0),
        ("SIGKILL, SIGTERM", f"{happened.kills}, {happened.terms}", happened.kills > 0),
        ("database restarts (immediate)", str(happened.restarts),
         happened.restarts >= plan.restarts or plan.storage == "sqlite"),
        ("workers frozen for 2.5 leases", str(happened.frozen), happened.frozen == 1),
        ("workers cut off for 2.5 leases",
         str(happened.cut) if plan.storage == "postgres" else "-",
         happened.cut == 1 or plan.storage == "sqlite"),
        ("database freezes, seconds", f"{happened.freezes}, {plan.freeze_s:g}",
         happened.freezes == 1),
        ("checkpoints damaged, noticed", f"{happened.damaged}, {damaged_said}",
         happened.damaged == 1 and bool(damaged_said)),
        ("trials that went on from a checkpoint", str(resumed), resumed > 0),
        ("epochs begun, needed", f"{begun}, {needed} (ratio {begun / needed:.3f})",
         needed <= begun),
        ("epochs repeated, at most one per blow, five per cut", f"{begun - needed} of {blows}",
         begun - needed <= blows),
        ("tracebacks in the workers' logs", str(tracebacks), tracebacks == 0),
        ("workers that ended otherwise than asked", str(wrong_exits or 0), not wrong_exits),
    ]  # fmt: skip
    return [
        {"what": what, "found": found, "ok": ok, "is_fault": what in FAULTS}
        for what, found, ok in rows
    ]


def _ends(stored: StoredStudy) -> Counter[int]:
    query = sa.select(schema.events.c.trial_id).where(
        schema.events.c.kind == events.EventKind.COMPLETE.value
    )
    with stored.engine.connect() as connection:
        return Counter(connection.scalars(query))


def _kinds(stored: StoredStudy) -> list[str]:
    with stored.engine.connect() as connection:
        return list(connection.scalars(sa.select(schema.events.c.kind)))


def _num_checkpoints(folder: Path) -> int:
    return len(list(folder.glob("home/checkpoints/*/*/*")))


def show(plan: Plan, happened: Happened, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = (
        f"{plan.trials} trials, {plan.workers} workers, {plan.storage}, seed {plan.seed}: "
        f"{happened.seconds:.0f} s on {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("found", justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(row["what"], row["found"], "ok" if row["ok"] else "FAILED")
    console = Console()
    console.width = max(console.width, 110)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--storage", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, help="default 6, on SQLite 4")
    parser.add_argument("--restarts", type=int, default=10, help="of the database server")
    parser.add_argument("--freeze-s", type=float, default=10.0, help="seconds of the freeze")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", metavar="DIR", help="leave logs and data in this folder")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    workers = arguments.workers or (6 if arguments.storage == "postgres" else 4)
    plan = Plan(
        storage=arguments.storage,
        trials=arguments.trials,
        workers=workers,
        restarts=arguments.restarts,
        seed=arguments.seed,
        freeze_s=arguments.freeze_s,
    )
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="skdtune-chaos-"))
        folder = Path(arguments.keep or made)
        folder.mkdir(parents=True, exist_ok=True)
        server: Postgres | Sqlite = Sqlite(folder / "study.db")
        line = None
        if plan.storage == "postgres":
            data = stack.enter_context(tempfile.TemporaryDirectory(prefix="skdtune-pg-"))
            server = Postgres(data)
            stack.callback(server.stop)
            line = Line(f"{data}/.s.PGSQL.5432")
            stack.callback(line.stop)
        happened = run(plan, folder, server, line)
        rows = check(plan, server.url, folder, happened)
    if arguments.json:
        print(json.dumps({"plan": vars(plan), "seconds": happened.seconds, "table": rows}))
    else:
        show(plan, happened, rows)
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    assert skdtune.worker.worker
    sys.exit(main())
