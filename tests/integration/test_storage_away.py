"""A database that answers nothing: all processes of PostgreSQL are stopped, SQLite is locked."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

#: An epoch takes so long that few of them pass during the test.
SLOW = """
import time
from skdtune.training.trainer import Trainer
train = Trainer._train_epoch
def slow(trainer, epoch, reporter):
    time.sleep(0.05)
    return train(trainer, epoch, reporter)
Trainer._train_epoch = slow
"""
#: The seconds that a person waits are another test's.
SHORT = """
from skdtune.queue import deadline, postgres_connections
deadline.ONLY_CALL_S = 1.0
postgres_connections._CONNECT_TIMEOUT_S = 2
"""
TIMES = {
    "SKDTUNE_ANSWER_SECONDS": "0.5",
    "SKDTUNE_LEASE_SECONDS": "3",
    "SKDTUNE_GRACE_SECONDS": "1",
}


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """Freeze a database for a while."""
    if url.startswith("sqlite"):
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.close()
        return
    folder = url.partition("host=")[2]
    first = (Path(folder) / "postmaster.pid").read_text().split()[0]
    stopped = [psutil.Process(int(first))]
    try:
        stopped[0].suspend()
        stopped += stopped[0].children(recursive=True)
        for process in stopped[1:]:
            process.suspend()
        yield
    finally:
        for process in reversed(stopped):
            process.resume()


def test_while_the_database_is_frozen_training_goes_on_and_nobody_waits_for_ever(
    any_url: str,
    make_search: Callable[..., Any],
    start_worker: Callable[..., Any],
    start: Callable[..., Any],
    until: Callable[..., Any],
) -> None:
    search = make_search(any_url, "budget.epochs=20000", num_trials=1)
    worker = start_worker(search, code=SLOW, env=TIMES)

    def newest() -> int:
        kept = worker.folder.glob("home/checkpoints/*/*/epoch-*")
        return max((int(path.name.split("-")[1].split(".")[0]) for path in kept), default=0)

    search.wait_for_epochs(0)
    with frozen(any_url):
        until(lambda: "the storage does not answer" in worker.err, "the silence is noticed")
        reached = newest() + 10
        until(lambda: newest() >= reached, "it trains on")
        assert "answers again" not in worker.err
    until(lambda: len(search.curve(0)) >= reached, "the epochs are stored")
    assert sorted(search.curve(0)) == list(range(len(search.curve(0))))
    assert search.attempt(0) == 1

    with frozen(any_url):
        worker.send(signal.SIGTERM)
        place = ("--storage", search.url)
        commands = [
            start("status", *place, code=SHORT),
            start("create-study", "digits-dsr", *place, code=SHORT),
        ]
        assert worker.wait() == 0
        for command in commands:
            assert command.wait() == 2
            assert "cannot be used, check the URL and the server: " in command.err.splitlines()[-1]
            assert "Traceback" not in command.err
    assert "Traceback" not in worker.err
    assert search.states == ["RUNNING"], "its lease runs out later"


def test_a_worker_whose_file_is_gone_says_so_and_keeps_its_checkpoint(
    make_search: Callable[..., Any],
    start_worker: Callable[..., Any],
    until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    file = tmp_path / "study.db"
    search = make_search(f"sqlite:///{file}", "budget.epochs=200", num_trials=1)
    worker = start_worker(search, code=SLOW, env={"SKDTUNE_LEASE_SECONDS": "1"})
    search.wait_for_epochs(0)
    file.rename(tmp_path / "moved.db")
    assert worker.wait() == 1
    assert worker.err.splitlines()[-1].startswith(f"skdtune: the file of the storage, {file}, is")
    assert "Traceback" not in worker.err
    assert not file.exists()
    kept = worker.folder / "home" / "checkpoints"
    assert len(list(kept.glob("*/*/epoch-*"))) == 2

    (tmp_path / "moved.db").rename(file)
    heir = start_worker(search, env={"SKDTUNE_CHECKPOINTS": str(kept)})
    until(lambda: "resumed" in search.story(0), "another one goes on from it")
    heir.send(signal.SIGTERM)
    assert heir.wait() == 0
    assert search.states == ["WAITING"]


#: It tells that it looks at its kernels, and goes on a while after.
LATE = """
import time
from skdtune.worker import worker
def late(device, is_leaving):
    worker.logger.info("looking at the kernels")
    time.sleep(1.5)
worker.prepare_kernels = late
"""


def test_a_worker_that_is_sent_away_before_it_began_leaves_as_asked(
    make_search: Callable[..., Any],
    start_worker: Callable[..., Any],
    until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    search = make_search(f"sqlite:///{tmp_path / 'study.db'}", num_trials=1)
    worker = start_worker(search, code=LATE, env=TIMES)
    log = worker.folder / "err"
    until(lambda: log.exists() and "looking at the kernels" in worker.err, "it has its data")
    with frozen(search.url):
        until(lambda: "the storage does not answer" in worker.err, "it asks what others had")
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0, worker.err
    assert "Traceback" not in worker.err
