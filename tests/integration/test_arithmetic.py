"""With what a worker computes: how many threads, and which kernels; a trial keeps to both."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from skdtune.cores import num_cores
from skdtune.models.kernels.native import load_kernels

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]

#: A worker that is asked to leave in an epoch.
LEAVE = """
import os, signal
from skdtune.training.trainer import Trainer
train = Trainer._train_epoch
def leave(trainer, epoch, reporter):
    if epoch == {epoch}:
        os.kill(os.getpid(), signal.SIGTERM)
    return train(trainer, epoch, reporter)
Trainer._train_epoch = leave
"""


def left_in(folder: Path) -> dict[str, str]:
    """Let a worker leave its trial at once, for another one to go on with."""
    return {"SKDTUNE_CHECKPOINTS": str(folder / "kept"), "SKDTUNE_GRACE_SECONDS": "0"}


@pytest.mark.skipif(num_cores() < 2, reason="needs two cores")
def test_a_trial_that_goes_on_keeps_its_threads_or_says_so(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    # No variable decides: the rule would take one thread for so small a network. One step is an
    # epoch, since two threads wait for each other where the tests keep all cores busy.
    env = {"OMP_NUM_THREADS": "", **left_in(tmp_path)}
    settings = ("budget.epochs=3", "data.batch_size=200", "data.max_per_class=10")
    left = make_search(sqlite_url, *settings, name="left", num_trials=1)
    first = start_worker(left, "--threads", "2", code=LEAVE.format(epoch=1), env=env)
    assert first.wait() == 0
    assert "worker of left on cpu: float32, " in first.err
    assert " kernels, 2 threads\n" in first.err
    assert left.trials[0].user_attrs["threads"] == 2
    heir = start_worker(left, code=LEAVE.format(epoch=2), env=env)
    assert heir.wait() == 0
    assert " kernels, 1 thread (more would wait for each other)\n" in heir.err
    assert "trial 0: 2 threads (as the trial began)" in heir.err
    assert left.trials[0].user_attrs["threads"] == 2
    assert "noted" not in left.story(0)
    assert list(left.curve(0)) == [0, 1]

    assert start_worker(left, "--threads", "1", env=env).wait() == 0
    (note,) = [event for event in left.events(0) if event.kind == "noted"]
    assert note.detail == "its epochs so far were computed with threads 2 (now 1)"
    assert left.trials[0].user_attrs["threads"] == 1


@pytest.mark.skipif(load_kernels() is None, reason="needs a C compiler")
def test_a_study_does_not_go_on_without_its_kernels_unnoticed(
    any_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    kept = left_in(tmp_path)
    torch_alone = {**kept, "SKDTUNE_NATIVE": "0"}
    search = make_search(any_url, num_trials=3)
    first = start_worker(search, "--require-kernels", code=LEAVE.format(epoch=1), env=kept)
    assert first.wait() == 0
    assert "of this study computed with" not in first.err

    difference = "1 trial of this study computed with native kernels, this worker has torch"
    refused = start_worker(search, env={**torch_alone, "SKDTUNE_REQUIRE_KERNELS": "1"})
    assert refused.wait() == 2
    assert refused.err.splitlines()[-1].startswith(f"skdtune: {difference}: install a C compiler")
    assert search.states == ["WAITING"] * 3
    assert search.attempt(0) == 0

    other = start_worker(search, "--max-trials", "2", env=torch_alone)
    assert other.wait() == 0
    assert other.err.count(difference) == 1
    notes = [[e.detail for e in search.events(n) if e.kind == "noted"] for n in (0, 1)]
    changed = "its epochs so far were computed with kernels native (now torch)"
    assert notes == [[difference, changed], [difference]]


def test_a_worker_waits_for_no_compiler_that_hangs(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    compiler, pids = tmp_path / "cc", tmp_path / "pids"
    compiler.write_text(
        f"#!/bin/sh\nsleep 3600 &\necho $! $$ > {pids}.new\nmv {pids}.new {pids}\nwait\n"
    )
    compiler.chmod(0o755)
    native = tmp_path / "native"
    search = make_search(sqlite_url)
    worker = start_worker(search, env={"CC": str(compiler), "SKDTUNE_NATIVE": str(native)})
    until(pids.exists, "the compiler hangs")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    named = [int(pid) for pid in pids.read_text().split()]
    until(lambda: not any(map(psutil.pid_exists, named)), "the compiler is gone")
    assert [path.name for path in native.iterdir()] in ([], [".lock"])
    assert search.story(0) == []
