"""The engine of this machine, with real processes that stand in for workers."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from skdtune.engines import local
from skdtune.engines.engine import Job, Placement
from skdtune.engines.local import LocalEngine

#: Says its process number and token, obeys as a worker does, and ends as the file beside it says.
WORKER = """#!/bin/sh
echo "$$ $SKDTUNE_WORKER_TOKEN $*"
trap 'exit 0' USR1 TERM
while :; do
    [ -f "{end}" ] && exit "$(cat "{end}")"
    sleep 0.02
done
"""

Make = Callable[..., LocalEngine]


@pytest.fixture
def end(tmp_path: Path) -> Path:
    """Return the file whose text is the exit code of all workers, once it is there."""
    return tmp_path / "end"


@pytest.fixture
def given_back() -> list[str]:
    return []


@pytest.fixture
def make(
    tmp_path: Path, end: Path, given_back: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    program = tmp_path / "worker"
    program.write_text(WORKER.format(end=end))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(local, "sys", SimpleNamespace(executable=str(program)))
    engines: list[LocalEngine] = []

    def make_engine(workers: int) -> LocalEngine:
        job = Job(
            study="tiny",
            environment={"SKDTUNE_STORAGE": "sqlite:///x.db"},
            log_dir=tmp_path / "logs",
            give_back=given_back.append,
        )
        engines.append(LocalEngine(job, Placement(gpus="none", workers=workers)))
        return engines[-1]

    yield make_engine
    for engine in engines:
        engine.kill()


def lines(engine: LocalEngine, index: int = 0) -> list[str]:
    return (Path(engine.where_logs) / f"worker-{index}.log").read_text().splitlines()


def follow_until(engine: LocalEngine, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        engine.poll()
        time.sleep(0.02)


def tokens(engine: LocalEngine, index: int = 0) -> list[str]:
    """Return what the workers of one place were known by, one after the other."""
    return [line.split()[1] for line in lines(engine, index)]


def start(engine: LocalEngine) -> list[int]:
    """Start an engine, and return the process numbers of its workers."""
    engine.start()
    indices = range(engine.num_workers)
    follow_until(engine, lambda: all(lines(engine, index) for index in indices))
    return [int(lines(engine, index)[0].split()[0]) for index in indices]


def test_a_worker_is_the_same_command_everywhere(make: Make) -> None:
    engine = make(1)
    start(engine)
    assert lines(engine)[0].split()[2:] == [
        *["-P", "-m", "skdtune", "worker", "tiny", "--device", "cpu"]
    ]
    assert (engine.num_workers, engine.num_restarts, engine.stopping) == (1, 0, False)


@pytest.mark.parametrize("ask", [LocalEngine.drain, LocalEngine.interrupt])
def test_workers_that_are_asked_to_leave_are_not_started_again(
    ask: Callable[[LocalEngine], None], make: Make, given_back: list[str]
) -> None:
    engine = make(2)
    start(engine)
    ask(engine)
    assert engine.stopping
    follow_until(engine, lambda: not engine.poll())
    assert (engine.failures(), given_back, engine.num_restarts) == ([], [], 0)


def test_a_worker_that_dies_is_given_back_by_its_token_and_started_again_with_another(
    make: Make, given_back: list[str]
) -> None:
    engine = make(1)
    (pid,) = start(engine)
    os.kill(pid, 9)
    follow_until(engine, lambda: engine.num_restarts == 1 and len(lines(engine)) == 2)
    first, second = tokens(engine)
    assert given_back == [first]
    assert (len(first), first != second) == (32, True)
    assert engine.poll()


def test_a_log_that_is_there_is_never_emptied(make: Make, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "worker-0.log"
    log.parent.mkdir()
    log.write_text("1 0 what somebody else said\n")
    engine = make(1)
    start(engine)
    assert lines(engine)[0] == "1 0 what somebody else said"


@pytest.mark.parametrize("code", [0, 2, 4])
def test_an_end_that_no_restart_would_mend_is_final(code: int, make: Make, end: Path) -> None:
    engine = make(1)
    start(engine)
    end.write_text(str(code))
    follow_until(engine, lambda: not engine.poll())
    assert engine.num_restarts == 0
    assert [failed.exit_code for failed in engine.failures()] == ([code] if code else [])
    assert all("skdtune worker tiny" in failed.message for failed in engine.failures())


def test_more_workers_are_started_and_fewer_finish_their_trial(
    make: Make, given_back: list[str]
) -> None:
    engine = make(1)
    first = start(engine)
    engine.scale(3)
    assert engine.num_workers == 3
    follow_until(engine, lambda: all(lines(engine, index) for index in (1, 2)))
    engine.scale(1)
    assert engine.num_workers == 1
    surplus = [int(lines(engine, index)[0].split()[0]) for index in (1, 2)]
    follow_until(engine, lambda: not any(is_alive(pid) for pid in surplus))
    assert engine.poll(), "the first one goes on"
    assert is_alive(first[0])
    engine.scale(2)
    follow_until(engine, lambda: bool(lines(engine, 3)))
    assert engine.num_workers == 2
    assert (engine.num_restarts, given_back, engine.stopping) == (0, [], False)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_killed_workers_are_given_back(make: Make, given_back: list[str]) -> None:
    engine = make(2)
    start(engine)
    engine.kill()
    assert sorted(given_back) == sorted(tokens(engine, 0) + tokens(engine, 1))
    assert not engine.poll()


@pytest.mark.parametrize(
    ("studies", "options", "expected"),
    [
        (("a",), (), ("worker", "a")),
        (("a", "b", "c"), ("--in-order",), ("worker", "a", "b", "c", "--in-order")),
        (("",), ("--serve",), ("worker", "--serve")),
    ],
)
def test_workers_are_told_all_their_studies(
    studies: tuple[str, ...], options: tuple[str, ...], expected: tuple[str, ...], tmp_path: Path
) -> None:
    first, *more = studies
    job = Job(
        study=first,
        more=tuple(more),
        options=options,
        environment={},
        log_dir=tmp_path,
        give_back=lambda token: None,
    )
    assert job.arguments == expected
