"""Workers that are stopped, killed or orphaned: no trial is lost, and none changes its result."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from skdtune.queue import leases, schema

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]

#: Longer than any test lasts.
ENDLESS = "budget.epochs=20000"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_stopped_worker_gives_its_trial_back(
    number: signal.Signals,
    code: int,
    any_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
) -> None:
    search = make_search(any_url, ENDLESS, num_trials=2)
    worker = start_worker(search)
    search.wait_for_epochs(0)
    worker.send(number)
    assert worker.wait() == code
    assert search.states == ["WAITING", "WAITING"]
    assert search.holders == []
    assert "trial 0 was given back to the queue" in worker.err
    assert "Traceback" not in worker.err
    again = leases.claim(
        search.stored.engine, search.stored.study_id, leases.WorkerIdentity(device="cpu")
    )
    assert again is not None
    assert (again.number, again.attempt) == (0, 2)
    assert len(search.curve(0)) >= 2


def test_a_drained_worker_finishes_its_trial_first(
    sqlite_url: str, make_search: MakeSearch, start_held_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, "budget.epochs=9", num_trials=2)
    worker = start_held_worker(search)
    search.wait_for_epochs(0, 1)
    # Some schedulers send SIGCONT ahead of the signal that they mean.
    worker.send(signal.SIGCONT)
    worker.send(signal.SIGUSR1)
    worker.let_go()
    assert worker.wait() == 0
    assert search.states == ["COMPLETE", "WAITING"]
    assert len(search.curve(0)) == 9


HANG_IN_A_STEP = """
import pathlib, time
from skdtune.training.trainer import Trainer
def hang(trainer, batch, epoch):
    pathlib.Path("hangs").touch()
    time.sleep(3600)
Trainer._train_step = hang
"""


def test_a_second_signal_does_not_wait_for_the_step(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    until: Callable[..., Any],
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    worker = start_worker(search, code=HANG_IN_A_STEP)
    until((worker.folder / "cwd" / "hangs").exists, "a step hangs")
    worker.send(signal.SIGINT)
    until(lambda: not catches(worker.pid, signal.SIGTERM), "the first signal was understood")
    worker.send(signal.SIGINT)
    assert worker.wait() == 130
    assert search.states == ["WAITING"]
    assert worker.err.splitlines()[-1] == "skdtune: interrupted"


def catches(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler of its own for a signal."""
    with open(f"/proc/{pid}/status") as status:
        caught = next(line.split()[1] for line in status if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


#: The process stops itself between two epochs, where it holds no lock of the database.
STOP_BEFORE_EPOCH_3 = """
import os, signal
from skdtune.training.trainer import Trainer
train, stopped = Trainer._train_epoch, []
def stop_once(trainer, epoch, reporter):
    if epoch == 3 and not stopped:
        stopped.append(epoch)
        os.kill(os.getpid(), signal.SIGSTOP)
    return train(trainer, epoch, reporter)
Trainer._train_epoch = stop_once
"""


def is_stopped(worker: Any) -> bool:
    return bool(psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)


RESUMED = {"preset": "digits-drg-dsr", "num_trials": 1}
EPOCHS = 20


@pytest.fixture(scope="module")
def undisturbed(
    module_search: MakeSearch, module_start_worker: StartWorker, tmp_path_factory: Any
) -> Any:
    """Run the trial once without any trouble."""
    url = f"sqlite:///{tmp_path_factory.mktemp('undisturbed')}/study.db"
    search = module_search(url, f"budget.epochs={EPOCHS}", **RESUMED)
    assert module_start_worker(search).wait() == 0
    return search.trials[0]


def test_a_killed_workers_trial_is_finished_by_another_with_the_same_result(
    any_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    undisturbed: Any,
    until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    search = make_search(any_url, f"budget.epochs={EPOCHS}", **RESUMED)
    shared = {"SKDTUNE_LEASE_SECONDS": "1", "SKDTUNE_CHECKPOINTS": str(tmp_path / "kept")}
    victim = start_worker(search, code=STOP_BEFORE_EPOCH_3, env=shared)
    until(lambda: is_stopped(victim), "the worker is in its fourth epoch")
    before = search.trials[0]
    assert list(before.intermediate_values) == [0, 1, 2]
    victim.send(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert search.states == ["RUNNING"]
    assert search.attempt(0) == 1

    heir = start_worker(search, env=shared)
    assert heir.wait() == 0
    assert "trial 0 waits again: its worker fell silent" in heir.err
    assert "trial 0 starts on cpu, attempt 2" in heir.err
    assert "trial 0 goes on after epoch 3, from the checkpoint of attempt 1" in heir.err
    assert search.story(0) == ["claimed", "lost", "claimed", "resumed", "complete"]
    assert not list((tmp_path / "kept").glob("**/*.ckpt"))
    (after,) = search.trials
    assert after.number == 0
    assert after.params == before.params == undisturbed.params
    assert before.intermediate_values.items() <= after.intermediate_values.items()
    assert after.intermediate_values == undisturbed.intermediate_values
    assert after.value == undisturbed.value


def test_an_attempt_without_a_checkpoint_leaves_nothing_of_the_curve_before(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    engine, first = search.stored.engine, leases.WorkerIdentity(device="cpu")
    claimed = leases.claim(engine, search.stored.study_id, first)
    assert claimed is not None
    search.stored.storage.set_trial_intermediate_value(claimed.trial_id, 7, 0.125)
    assert leases.release(engine, claimed)
    assert search.curve(0) == {7: 0.125}
    assert start_worker(search).wait() == 0
    assert list(search.curve(0)) == [0, 1]
    assert search.story(0) == ["claimed", "preempted", "claimed", "restarted", "complete"]


def test_a_worker_that_slept_through_its_lease_writes_nothing_and_goes_on(
    any_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    until: Callable[..., Any],
) -> None:
    search = make_search(any_url, ENDLESS, num_trials=2)
    engine, study_id = search.stored.engine, search.stored.study_id
    sleeper = start_worker(search, code=STOP_BEFORE_EPOCH_3, env={"SKDTUNE_LEASE_SECONDS": "1"})
    until(lambda: is_stopped(sleeper), "the worker is in its fourth epoch")
    until(lambda: leases.reap(engine, study_id) == [0], "its lease has run out")
    thief = leases.claim(engine, study_id, leases.WorkerIdentity(device="cpu"))
    assert thief is not None
    assert (thief.number, thief.attempt) == (0, 2)
    curve = search.curve(0)
    assert list(curve) == [0, 1, 2]
    sleeper.send(signal.SIGCONT)
    search.wait_for_epochs(1)
    assert search.curve(0) == curve
    assert search.states == ["RUNNING", "RUNNING"]
    assert search.attempt(0) == 2
    sleeper.send(signal.SIGTERM)
    assert sleeper.wait() == 0
    assert "trial 0 was taken over" in sleeper.err
    assert search.states == ["RUNNING", "WAITING"]


def test_a_worker_whose_supervisor_is_gone_takes_no_trial(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url)
    worker = start_worker(search, env={"SKDTUNE_SUPERVISED": "1999999999"})
    assert worker.wait() == 0
    assert search.states == ["WAITING"] * 3


def test_a_worker_that_is_busy_for_hours_gives_the_trials_of_the_dead_back_meanwhile(
    any_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    until: Callable[..., Any],
) -> None:
    search = make_search(any_url, ENDLESS, num_trials=2)
    engine, study_id = search.stored.engine, search.stored.study_id
    assert leases.claim(engine, study_id, leases.WorkerIdentity(device="cpu")) is not None
    busy = start_worker(search, env={"SKDTUNE_LEASE_SECONDS": "1"})
    until(lambda: search.attempt(1) == 1, "the worker has the other trial")
    with engine.begin() as connection:
        connection.execute(
            sa.update(schema.leases)
            .where(schema.leases.c.lease_s == leases.LEASE_S)
            .values(renewed_at=schema.leases.c.renewed_at - 2 * leases.LEASE_S)
        )
        if connection.dialect.name == "postgresql":
            # The server is younger than that: its start counts as a sign of life.
            connection.execute(
                sa.update(schema.leases)
                .where(schema.leases.c.lease_s == leases.LEASE_S)
                .values(lease_s=0.1)
            )
    until(lambda: search.states == ["WAITING", "RUNNING"], "it gives it back while it trains")
    assert search.story(0) == ["claimed", "lost"]
    busy.send(signal.SIGTERM)
    assert busy.wait() == 0
