"""A database that accepts connections and answers nothing: every process of it is stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

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
from skdtune.queue import postgres_connections
postgres_connections._CONNECT_TIMEOUT_S = 2
"""
TIMES = {
    "SKDTUNE_ANSWER_SECONDS": "0.5",
    "SKDTUNE_LEASE_SECONDS": "3",
    "SKDTUNE_GRACE_SECONDS": "1",
}


@pytest.fixture
def frozen(postgres_server: str) -> Callable[[], AbstractContextManager[None]]:
    """Freeze the server and all of its processes for a while."""

    @contextmanager
    def freeze() -> Iterator[None]:
        first = (Path(postgres_server) / "postmaster.pid").read_text().split()[0]
        server = psutil.Process(int(first))
        server.suspend()
        stopped = [server, *server.children(recursive=True)]
        try:
            for process in stopped:
                process.suspend()
            yield
        finally:
            for process in reversed(stopped):
                process.resume()

    return freeze


def test_while_the_database_is_frozen_training_goes_on_and_nobody_waits_for_ever(
    postgres_url: str,
    make_search: Callable[..., Any],
    start_worker: Callable[..., Any],
    start: Callable[..., Any],
    until: Callable[..., Any],
    frozen: Callable[[], AbstractContextManager[None]],
) -> None:
    search = make_search(postgres_url, "budget.epochs=20000", num_trials=1)
    worker = start_worker(search, code=SLOW, env=TIMES)

    def newest() -> int:
        kept = worker.folder.glob("home/checkpoints/*/*/epoch-*")
        return max((int(path.name.split("-")[1].split(".")[0]) for path in kept), default=0)

    search.wait_for_epochs(0)
    with frozen():
        until(lambda: "the storage does not answer" in worker.err, "the silence is noticed")
        reached = newest() + 10
        until(lambda: newest() >= reached, "it trains on")
        assert "answers again" not in worker.err
    until(lambda: len(search.curve(0)) >= reached, "the epochs are stored")
    assert sorted(search.curve(0)) == list(range(len(search.curve(0))))
    assert search.attempt(0) == 1

    with frozen():
        worker.send(signal.SIGTERM)
        place = ("--storage", search.url)
        commands = [
            start("status", *place, code=SHORT),
            start("create-study", "digits-dsr", *place, code=SHORT),
        ]
        assert worker.wait() == 0
        for command in commands:
            assert command.wait() == 2
            last = command.err.splitlines()[-1]
            assert "cannot be used, check the URL and the server: connection timeout" in last
            assert "Traceback" not in command.err
    assert "Traceback" not in worker.err
    assert search.states == ["RUNNING"], "its lease runs out later"
