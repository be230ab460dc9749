"""What skdtune's queue costs beside plain Optuna, on SQLite and on PostgreSQL.

    python benchmarks/storage.py [--repeats 3] [--quick] [--json] [--sqlite-only | --postgres-only]

Plain Optuna is ``RDBStorage(url)`` with ``ask``, ``report`` and ``tell``, in a database of its own
without any of skdtune's tables, indexes or settings. Both do the same work in turn, so that a
machine that changes its speed changes both; a gain is the median of the ratios pair by pair, and
above 1 where skdtune is faster.

- Claims: processes empty a queue of blank trials. A trial counts once, however often it was
  handed out. The clock runs from a barrier to the last claim; neither start-up nor finding the
  queue empty counts. No trial ends meanwhile.
- Reports: one epoch's value. skdtune's call also proves the ownership and renews the lease, plain
  Optuna runs without any heartbeat.
- Growth: a worker that has been running claims a trial and suggests its parameters, in studies of
  a hundred to ten thousand trials, each with Optuna's or skdtune's default TPE sampler.

Ends with 1 if a bound does not hold; not with ``--quick``, whose sizes are too small to judge by.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from multiprocessing.synchronize import Barrier, Lock
from pathlib import Path
from typing import Any, Protocol

import optuna
import psycopg
import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from skdtune.describe.presets import load_spec
from skdtune.describe.space import FloatRange, SearchSpace, sample
from skdtune.queue import leases, schema, trial_writes
from skdtune.queue.events import EventKind
from skdtune.queue.history import TrialHistory
from skdtune.queue.stored_study import create_study, load_study
from skdtune.queue.trial_queue import TrialQueue
from skdtune.search.samplers.tpe import TpeConfig

STUDY = "benchmark"
SPACE: SearchSpace = {
    f"param_{index}": FloatRange(low=1e-4, high=1.0, log=index % 2 == 0) for index in range(8)
}
NOISE = 0.95
PROCESSES = (1, 4, 8)
#: Seconds after which a process gives up, so that no benchmark hangs.
LONGEST_S = 90.0


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    claims: int = 100
    pairs: int = 300
    reports_each: int = 40
    stored: tuple[int, ...] = (100, 1_000, 10_000)
    rounds: int = 10
    repeats: int = 3


QUICK = Sizes(claims=30, pairs=20, reports_each=5, stored=(40, 200), rounds=3, repeats=1)


@dataclass(frozen=True)
class Row:
    """One line of the result."""

    database: str
    what: str
    unit: str
    plain: float
    skdtune: float
    gain: float
    """Median ratio of the pairs; above 1 where skdtune is faster."""

    twice: tuple[int, int] = (0, 0)
    """Trials that were handed out twice, plain and skdtune, all repeats together."""

    errors: tuple[int, int] = (0, 0)
    """Calls that raised, plain and skdtune, all repeats together."""


@dataclass(frozen=True)
class Bound:
    """A promise about the rows of one database."""

    text: str
    found: str
    holds: bool


@dataclass(frozen=True)
class Gate:
    """Where processes that are ready wait for the others."""

    barrier: Barrier
    one_by_one: Lock


@dataclass(frozen=True)
class Outcome:
    """What one of several processes did."""

    start: float
    end: float
    done: list[int]
    errors: Counter[str]


class Side(Protocol):
    """One of the two that are compared, in this process."""

    def report(self) -> None:
        """Store the next epoch of one trial."""

    def claim_and_suggest(self) -> tuple[float, float]:
        """Return the milliseconds of a claim, and of a claim with the first suggest."""

    def close(self) -> None:
        """Close the connections."""


class Plain:
    """Optuna as a plain user drives it."""

    def __init__(self, url: str, sampler: optuna.samplers.BaseSampler | None = None) -> None:
        self._storage = RDBStorage(url)
        self.study = optuna.load_study(study_name=STUDY, storage=self._storage, sampler=sampler)
        self._trial: optuna.Trial | None = None
        self._step = 0

    @staticmethod
    def create(url: str, num_trials: int) -> sa.Engine:
        study = optuna.create_study(
            study_name=STUDY, storage=RDBStorage(url), direction="maximize"
        )
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            queue(connection, study._study_id, range(num_trials))
        return engine

    def claim(self) -> int:
        return self.study.ask().number

    def report(self) -> None:
        if self._trial is None:
            self._trial = self.study.ask()
        self._trial.report(0.5, self._step)
        self._step += 1

    def claim_and_suggest(self) -> tuple[float, float]:
        start = time.perf_counter()
        trial = self.study.ask()
        claimed = time.perf_counter()
        sample(SPACE, trial)
        end = time.perf_counter()
        self.study.tell(trial, random.random())
        return (claimed - start) * 1000, (end - start) * 1000

    def close(self) -> None:
        self._storage.engine.dispose()


class Skdtune:
    """skdtune's queue as its worker drives it."""

    def __init__(self, url: str) -> None:
        self._stored = load_study(STUDY, storage=url)
        self._engine = self._stored.engine
        self._worker = leases.WorkerIdentity(device="cpu")
        self._history = TrialHistory(TrialQueue(self._stored))
        self._claim: leases.Claim | None = None
        self._step = 0

    @staticmethod
    def create(url: str, num_trials: int) -> sa.Engine:
        create_study(load_spec("digits-drg-dsr", name=STUDY, num_trials=num_trials), storage=url)
        return sa.create_engine(url)

    def claim(self) -> int | None:
        claimed = leases.claim(self._engine, self._stored.study_id, self._worker)
        return None if claimed is None else claimed.number

    def report(self) -> None:
        if self._claim is None:
            self._claim = leases.claim(self._engine, self._stored.study_id, self._worker)
            assert self._claim is not None
        trial_writes.write_report(self._engine, self._claim, self._step, 0.5)
        self._step += 1

    def claim_and_suggest(self) -> tuple[float, float]:
        start = time.perf_counter()
        claim = leases.claim(self._engine, self._stored.study_id, self._worker)
        claimed = time.perf_counter()
        assert claim is not None
        trial = self._history.begin(claim, TpeConfig().build(0, claim.number))
        sample(SPACE, trial)
        self._history.store_params()
        end = time.perf_counter()
        trial_writes.finish(
            self._engine,
            claim,
            TrialState.COMPLETE,
            EventKind.COMPLETE,
            value=random.random(),
            epochs=1,
        )
        return (claimed - start) * 1000, (end - start) * 1000

    def close(self) -> None:
        self._stored.close()


def queue(connection: sa.Connection, study_id: int, numbers: range) -> None:
    """Add blank waiting trials in one statement."""
    rows = [{"study_id": study_id, "number": n, "state": TrialState.WAITING} for n in numbers]
    connection.execute(sa.insert(schema.trials), rows)


def finish_first(engine: sa.Engine, num_finished: int) -> None:
    """End the first trials of the only study, with parameters and three intermediate values."""
    generator = random.Random(0)
    distributions = {
        name: distribution_to_json(
            optuna.distributions.FloatDistribution(param.low, param.high, log=param.log)
        )
        for name, param in SPACE.items()
        if isinstance(param, FloatRange)
    }
    finite_step = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    finite = models.TrialValueModel.TrialValueType.FINITE
    start = datetime(2025, 1, 1)
    trials = schema.trials
    first = trials.c.number < num_finished
    with engine.begin() as connection:
        ids = connection.scalars(sa.select(trials.c.trial_id).where(first)).all()
        connection.execute(
            sa.update(trials)
            .where(first)
            .values(
                state=TrialState.COMPLETE,
                datetime_start=start,
                datetime_complete=start + timedelta(minutes=1),
            )
        )
        connection.execute(
            sa.insert(schema.params),
            [
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": generator.uniform(1e-4, 1.0),
                    "distribution_json": text,
                }
                for trial_id in ids
                for name, text in distributions.items()
            ],
        )
        connection.execute(
            sa.insert(schema.values),
            [
                {
                    "trial_id": trial_id,
                    "objective": 0,
                    "value": generator.random(),
                    "value_type": finite,
                }
                for trial_id in ids
            ],
        )
        connection.execute(
            sa.insert(schema.steps),
            [
                {
                    "trial_id": trial_id,
                    "step": step,
                    "intermediate_value": generator.random(),
                    "intermediate_value_type": finite_step,
                }
                for trial_id in ids
                for step in range(3)
            ],
        )
        if sa.inspect(connection).has_table(schema.events.name):
            # Without the story of a worker that ended it a trial is foreign: no sampler sees it.
            connection.execute(
                sa.insert(schema.events),
                [
                    {
                        "study_id": 1,
                        "trial_id": trial_id,
                        "attempt": 1,
                        "at": start.timestamp(),
                        "kind": EventKind.COMPLETE.value,
                        "final": True,
                        "epochs": 3,
                        "worker": "",
                        "detail": "",
                    }
                    for trial_id in ids
                ],
            )
    # A server does this by itself in a study that grew slowly.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("VACUUM ANALYZE"))


def empty_plain(url: str, num: int, gate: Gate) -> Outcome:
    """Claim until the queue is empty: then ``ask`` makes a trial with a number beyond it."""
    side = Plain(url, optuna.samplers.RandomSampler())
    return _until_empty(side.claim, num, gate)


def empty_skdtune(url: str, num: int, gate: Gate) -> Outcome:
    side = Skdtune(url)
    return _until_empty(side.claim, num, gate)


def report_plain(url: str, num: int, gate: Gate) -> Outcome:
    return _repeat(Plain(url, optuna.samplers.RandomSampler()).report, num, gate)


def report_skdtune(url: str, num: int, gate: Gate) -> Outcome:
    return _repeat(Skdtune(url).report, num, gate)


def _until_empty(claim: Callable[[], int | None], num: int, gate: Gate) -> Outcome:
    done: list[int] = []
    errors: Counter[str] = Counter()
    gate.barrier.wait(LONGEST_S)
    start = end = time.monotonic()
    while time.monotonic() - start < LONGEST_S:
        try:
            number = claim()
        except Exception as error:
            errors[type(error).__name__] += 1
            continue
        if number is None or number >= num:
            break
        done.append(number)
        end = time.monotonic()
    return Outcome(start, end, done, errors)


def _repeat(report: Callable[[], None], num: int, gate: Gate) -> Outcome:
    errors: Counter[str] = Counter()
    # The first call also claims the trial, which plain Optuna may hand out twice.
    with gate.one_by_one:
        report()
    gate.barrier.wait(LONGEST_S)
    start = time.monotonic()
    done = []
    for step in range(num):
        try:
            report()
        except Exception as error:
            errors[type(error).__name__] += 1
        else:
            done.append(step)
        if time.monotonic() - start > LONGEST_S:
            break
    return Outcome(start, time.monotonic(), done, errors)


Work = Callable[[str, int, Gate], Outcome]


def _child(work: Work, url: str, num: int, gate: Gate, outcomes: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        outcomes.put(work(url, num, gate))
    except BaseException as error:
        gate.barrier.abort()
        outcomes.put(error)
        raise


def together(work: Work, url: str, num: int, processes: int) -> list[Outcome]:
    """Do the same work in several processes that begin at one moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alembic.script", "psycopg", "skdtune.queue.history"])
    gate, outcomes = Gate(context.Barrier(processes), context.Lock()), context.Queue()
    children = [
        context.Process(target=_child, args=(work, url, num, gate, outcomes))
        for _ in range(processes)
    ]
    for child in children:
        child.start()
    found = [outcomes.get(timeout=3 * LONGEST_S) for _ in children]
    for child in children:
        child.join()
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
    return found


@dataclass(frozen=True)
class Database:
    """Makes empty databases of one kind."""

    name: str
    new_url: Callable[[], str]


@contextlib.contextmanager
def sqlite() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="skdtune-benchmark-") as folder:
        yield Database("SQLite", lambda: f"sqlite:///{Path(folder) / uuid.uuid4().hex}.db")


@contextlib.contextmanager
def postgres() -> Iterator[Database]:
    # pgserver asks platformdirs for a runtime folder, which warns where the variable is not set.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="skdtune-benchmark-"))
    from pgserver import get_server  # type: ignore[attr-defined,unused-ignore]

    with tempfile.TemporaryDirectory(prefix="skdtune-benchmark-pg-") as folder:
        server = get_server(folder, cleanup_mode="stop")

        def url(name: str) -> str:
            return f"postgresql+psycopg://postgres:@/{name}?host={folder}"

        def new_url() -> str:
            name = f"benchmark_{uuid.uuid4().hex}"
            admin = sa.create_engine(url("postgres"), isolation_level="AUTOCOMMIT")
            with admin.connect() as connection:
                connection.execute(sa.text(f"CREATE DATABASE {name}"))
            admin.dispose()
            return url(name)

        try:
            yield Database("PostgreSQL", new_url)
        finally:
            server.cleanup()


def prepared(database: Database, num_trials: int, num_finished: int = 0) -> tuple[str, str]:
    """Make the same study for both sides, each in a database of its own."""
    urls = (database.new_url(), database.new_url())
    for create, url in zip((Plain.create, Skdtune.create), urls, strict=True):
        engine = create(url, num_trials)
        if num_finished:
            finish_first(engine, num_finished)
        engine.dispose()
    return urls


def measure_claims(database: Database, sizes: Sizes, processes: int) -> Row:
    rates: list[tuple[float, float]] = []
    twice, errors = [0, 0], [0, 0]
    for _ in range(sizes.repeats):
        pair = []
        urls = prepared(database, sizes.claims)
        for side, (work, url) in enumerate(zip((empty_plain, empty_skdtune), urls, strict=True)):
            outcomes = together(work, url, sizes.claims, processes)
            handed_out = Counter(number for outcome in outcomes for number in outcome.done)
            pair.append(len(handed_out) / _wall_s(outcomes))
            twice[side] += sum(count > 1 for count in handed_out.values())
            errors[side] += sum(outcome.errors.total() for outcome in outcomes)
        rates.append((pair[0], pair[1]))
    what = f"claims, {_plural(processes)}"
    return replace(
        _rate_row(database, what, rates), twice=(twice[0], twice[1]), errors=(errors[0], errors[1])
    )


def measure_reports(database: Database, sizes: Sizes, processes: int) -> Row:
    rates: list[tuple[float, float]] = []
    errors = [0, 0]
    for _ in range(sizes.repeats):
        pair = []
        urls = prepared(database, processes)
        for side, (work, url) in enumerate(zip((report_plain, report_skdtune), urls, strict=True)):
            outcomes = together(work, url, sizes.reports_each, processes)
            pair.append(sum(len(outcome.done) for outcome in outcomes) / _wall_s(outcomes))
            errors[side] += sum(outcome.errors.total() for outcome in outcomes)
        rates.append((pair[0], pair[1]))
    row = _rate_row(database, f"reports, {_plural(processes)}", rates)
    return replace(row, errors=(errors[0], errors[1]))


def measure_report_cost(database: Database, sizes: Sizes) -> Row:
    """Report from one process, the two sides in turn."""
    urls = prepared(database, 1)
    sides: list[Side] = [Plain(urls[0], optuna.samplers.RandomSampler()), Skdtune(urls[1])]
    for side in sides:
        for _ in range(10):
            side.report()
    pairs = []
    for _ in range(sizes.pairs):
        ms = [_timed_ms(side.report) for side in sides]
        pairs.append((ms[0], ms[1]))
    for side in sides:
        side.close()
    return _cost_row(database, "one report", pairs)


def measure_growth(database: Database, sizes: Sizes, waiting: Callable[[int], int]) -> list[Row]:
    """Claim and suggest in studies of several sizes, all in turn.

    Every trial is ended, and another one is queued: the sizes stay what they are.
    """
    studies = {stored: growing(database, stored, waiting(stored)) for stored in sizes.stored}
    claims: dict[int, list[tuple[float, float]]] = {stored: [] for stored in studies}
    firsts: dict[int, list[tuple[float, float]]] = {stored: [] for stored in studies}
    for turn in range(sizes.rounds + 1):
        for stored, sides in studies.items():
            found = []
            for side, engine in sides:
                # What one side left behind is not cleaned up in the time of the other.
                gc.collect()
                found.append(side.claim_and_suggest())
                with engine.begin() as connection:
                    queue(connection, 1, range(stored + turn, stored + turn + 1))
            plain, ours = found
            if turn:
                claims[stored].append((plain[0], ours[0]))
                firsts[stored].append((plain[1], ours[1]))
    for side, engine in (pair for sides in studies.values() for pair in sides):
        side.close()
        engine.dispose()
    return [
        _cost_row(database, f"{what}, {_growth(stored, waiting(stored))}", pairs[stored])
        for stored in studies
        for what, pairs in (("claim", claims), ("claim and suggest", firsts))
    ]


def growing(database: Database, stored: int, waiting: int) -> list[tuple[Side, sa.Engine]]:
    """Make a study of many trials for both sides, each with an engine to queue more of them."""
    urls = prepared(database, stored, stored - waiting)
    sides: list[Side] = [Plain(urls[0]), Skdtune(urls[1])]
    return [(side, sa.create_engine(url)) for side, url in zip(sides, urls, strict=True)]


def half(stored: int) -> int:
    return stored // 2


def few(stored: int) -> int:
    return min(10, stored // 2)


def _growth(stored: int, waiting: int) -> str:
    return f"{stored:,} trials, {'half' if waiting == half(stored) else waiting} waiting"


def _plural(processes: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}"


def _timed_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def _wall_s(outcomes: Sequence[Outcome]) -> float:
    return max(o.end for o in outcomes) - min(o.start for o in outcomes)


def _rate_row(database: Database, what: str, pairs: Sequence[tuple[float, float]]) -> Row:
    plain, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    gain = statistics.median(b / a for a, b in pairs)
    return Row(database.name, what, "/s", plain, ours, gain)


def _cost_row(database: Database, what: str, pairs: Sequence[tuple[float, float]]) -> Row:
    plain, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    gain = statistics.median(a / b for a, b in pairs)
    return Row(database.name, what, "ms", plain, ours, gain)


def measure(database: Database, sizes: Sizes) -> Iterator[Row]:
    for processes in PROCESSES:
        yield measure_claims(database, sizes, processes)
    yield measure_report_cost(database, sizes)
    yield measure_reports(database, sizes, PROCESSES[-1])
    for waiting in (half, few):
        yield from measure_growth(database, sizes, waiting)


def judge(rows: Sequence[Row], sizes: Sizes) -> list[Bound]:
    """Check what skdtune promises; the rows are those of one database."""
    by_what = {row.what: row for row in rows}
    name = rows[0].database

    def gain(what: str, least: float, text: str) -> Bound:
        row = by_what[what]
        return Bound(f"{name}: {text}", f"{row.gain:.2f} times", row.gain >= least)

    most = PROCESSES[-1]
    small, large = sizes.stored[0], sizes.stored[-1]
    growth = max(
        by_what[f"claim, {_growth(large, waiting(large))}"].skdtune
        / by_what[f"claim, {_growth(small, waiting(small))}"].skdtune
        for waiting in (half, few)
    )
    faults = sum(row.twice[1] + row.errors[1] for row in rows)
    return [
        gain("claims, 1 process", NOISE, "one process claims no slower than plain Optuna"),
        gain("one report", NOISE, "one process reports no slower than plain Optuna"),
        gain(f"claims, {most} processes", 3.0, f"{most} processes claim 3 times as fast"),
        Bound(
            f"{name}: a claim at {large:,} trials takes at most twice that at {small:,}",
            f"{growth:.2f} times",
            growth <= 2.0,
        ),
        Bound(f"{name}: no trial handed out twice, no error", str(faults), faults == 0),
    ]


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    versions = {
        "Python": platform.python_version(),
        "Optuna": optuna.__version__,
        "SQLAlchemy": sa.__version__,
        "SQLite": sqlite3.sqlite_version,
        "psycopg": psycopg.__version__,
    }
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{os.cpu_count()} cores, {cpu}; {listed}"


def show(rows: Sequence[Row], bounds: Sequence[Bound], sizes: Sizes) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"{sizes.claims} trials to claim, {sizes.repeats} repeats")
    table.add_column("database")
    table.add_column("what", no_wrap=True)
    for heading in ("plain Optuna", "skdtune", "gain", "twice", "errors"):
        table.add_column(heading, justify="right")
    previous = rows[0].database
    for row in rows:
        if row.database != previous:
            table.add_section()
        previous = row.database
        table.add_row(
            row.database,
            row.what,
            f"{row.plain:.2f} {row.unit}",
            f"{row.skdtune:.2f} {row.unit}",
            f"{row.gain:.2f}",
            *(f"{a} / {b}" if a or b else "" for a, b in (row.twice, row.errors)),
        )
    console.print(table)
    for bound in bounds:
        word = "[green]PASS[/]" if bound.holds else "[red]FAIL[/]"
        console.print(f"{word} {bound.text}: {bound.found}", highlight=False)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, help="repeats of what several processes do")
    parser.add_argument("--quick", action="store_true", help="small sizes, bounds not binding")
    parser.add_argument("--json", action="store_true")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--sqlite-only", action="store_true")
    only.add_argument("--postgres-only", action="store_true")
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    sizes = QUICK if options.quick else Sizes()
    if options.repeats:
        sizes = replace(sizes, repeats=options.repeats)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kinds = [sqlite] * (not options.postgres_only) + [postgres] * (not options.sqlite_only)
    rows: list[Row] = []
    bounds: list[Bound] = []
    start = time.monotonic()
    for kind in kinds:
        with kind() as database:
            of_database = []
            for row in measure(database, sizes):
                print(
                    f"{time.monotonic() - start:4.0f} s  {row.database}: {row.what}",
                    file=sys.stderr,
                )
                of_database.append(row)
        rows += of_database
        bounds += judge(of_database, sizes)
    if options.json:
        found = {
            "machine": machine(),
            "sizes": asdict(sizes),
            "rows": [asdict(row) for row in rows],
            "bounds": [asdict(bound) for bound in bounds],
        }
        print(json.dumps(found, indent=2))
    else:
        print(machine())
        show(rows, bounds, sizes)
    return 0 if options.quick or all(bound.holds for bound in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
