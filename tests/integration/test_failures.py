"""Trials that go wrong: each failure has its kind, and a worker outlives what one trial did."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from skdtune.queue import pausing

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]

ENDLESS = "budget.epochs=20000"

RAISE_IN_SOME_TRIALS = """
import torch
from skdtune.worker import objective
run, count = objective.Trainer.run, iter(range(99))
def broken(trainer, reporter, **settings):
    number = next(count)
    {body}
    return run(trainer, reporter, **settings)
objective.Trainer.run = broken
"""


def raising(body: str) -> str:
    return RAISE_IN_SOME_TRIALS.format(body=body)


def test_a_trial_whose_loss_becomes_nan_is_pruned_with_the_reason(
    any_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(
        any_url,
        "optimizer.lr=1e25",
        "search.optimizer.lr.high=1e30",
        "enqueue=[{optimizer.lr: 0.05}]",
        num_trials=2,
    )
    worker = start_worker(search)
    assert worker.wait() == 0
    assert search.states == ["PRUNED", "COMPLETE"]
    attributes = search.trials[0].user_attrs
    assert attributes["failure_kind"] == "nan"
    assert attributes["failure_reason"].startswith("the loss cross_entropy became non-finite")
    assert attributes["seed"]
    assert "failure_kind" not in search.trials[1].user_attrs
    assert "trial 0 ended (nan)" in worker.err


def test_nan_in_every_trial_does_not_end_the_worker_and_everybody_says_what_to_do(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    run_cli: Callable[..., Any],
) -> None:
    diverging = ["optimizer.lr=1e25", "search.optimizer.lr.low=1e20"]
    search = make_search(sqlite_url, *diverging, "search.optimizer.lr.high=1e30", num_trials=5)
    worker = start_worker(search)
    assert worker.wait() == 0
    assert search.states == ["PRUNED"] * 5
    advice = (
        "study 'tiny' has no complete trial, and none is left: 5 ended with a loss that was not "
        "finite; make one with smaller learning rates (optimizer.lr) or model.precision=float32; "
        "`skdtune explain tiny 0` tells of one"
    )
    assert advice in worker.err
    best = run_cli("best", "tiny", "--storage", sqlite_url)
    assert (best.returncode, best.stderr) == (2, f"skdtune: {advice}\n")
    launched = run_cli("launch", "tiny", "--storage", sqlite_url, "--gpus", "none")
    assert (launched.returncode, launched.stderr) == (1, f"{advice}\n")
    assert launched.stdout == "tiny is finished already: without a result\n"
    status = run_cli("status", "tiny", "--storage", sqlite_url).stdout
    assert "no trial complete: skdtune best tiny says why; finished" in status
    assert "in epoch 1" in run_cli("explain", "tiny", "0", "--storage", sqlite_url).stdout


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        ("RuntimeError('broken numbers\\n  in detail')", "error", "RuntimeError: broken numbers"),
        ("ValueError()", "error", "ValueError: "),
        ("torch.OutOfMemoryError('CUDA out of memory')", "oom", "OutOfMemoryError: CUDA out of "),
        ("MemoryError()", "oom", "MemoryError: "),
    ],
)
def test_an_exception_fails_its_trial_and_the_worker_goes_on(
    error: str,
    kind: str,
    reason: str,
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
) -> None:
    search = make_search(sqlite_url, "budget.epochs=1", num_trials=3)
    worker = start_worker(search, code=raising(f"if number == 1: raise {error}"))
    assert worker.wait() == 0
    assert search.states == ["COMPLETE", "FAIL", "COMPLETE"]
    attributes = search.trials[1].user_attrs
    assert attributes["failure_kind"] == kind
    assert attributes["failure_reason"].startswith(reason)
    assert "\n" not in attributes["failure_reason"]
    assert f"trial 1 ended ({kind}): {reason}" in worker.err


def test_three_equal_failures_in_a_row_pause_the_study(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, "budget.epochs=1", num_trials=6)
    worker = start_worker(search, code=raising("if number > 0: raise RuntimeError('no disk')"))
    assert worker.wait() == 4
    assert search.states == ["COMPLETE", "FAIL", "FAIL", "FAIL", "WAITING", "WAITING"]
    last = worker.err.splitlines()[-1]
    reason = "3 trials in a row failed with the same error: RuntimeError: no disk"
    assert last == f"skdtune: study tiny is paused: {reason}; mend it, then `skdtune resume tiny`"
    other = start_worker(search)
    assert other.wait() == 4, "no other worker takes a trial either"
    assert search.states[4:] == ["WAITING", "WAITING"]
    assert pausing.paused_reason(search.stored.engine, search.stored.study_id) == reason
    assert pausing.resume(search.stored.engine, search.stored.study_id)
    assert start_worker(search).wait() == 0
    assert search.states == ["COMPLETE", "FAIL", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]


def test_failures_that_differ_or_are_not_in_a_row_do_not_pause_it(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, "budget.epochs=1", num_trials=8)
    body = """
    if number in (0, 1, 3, 4): raise RuntimeError('no disk')
    if number in (5, 6): raise RuntimeError(f'disk {number}')"""
    worker = start_worker(search, code=raising(body))
    assert worker.wait() == 0
    ended = {index for index, state in enumerate(search.states) if state == "FAIL"}
    assert ended == {0, 1, 3, 4, 5, 6}


def test_a_trial_that_somebody_ends_from_outside_is_dropped(
    any_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(any_url, ENDLESS, num_trials=2)
    worker = start_worker(search)
    outside = optuna.load_study(study_name=search.name, storage=search.stored.storage)
    for number in range(2):
        search.wait_for_epochs(number)
        outside.tell(number, state=TrialState.FAIL)
    assert worker.wait() == 0
    assert search.states == ["FAIL", "FAIL"]
    for number in range(2):
        assert f"trial {number} was taken over or ended from outside" in worker.err
    assert "given back" not in worker.err
    assert "0 trials finished by this worker" in worker.err


def test_a_trial_that_is_ended_at_the_last_moment_stays_as_it_was_ended(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    code = f"""
import optuna
from optuna.trial import TrialState
from skdtune.queue import trial_writes
finish = trial_writes.finish
def finish_too_late(engine, claimed, *arguments, **settings):
    outside = optuna.load_study(study_name="tiny", storage={sqlite_url!r})
    outside._storage.set_trial_state_values(claimed.trial_id, TrialState.FAIL)
    return finish(engine, claimed, *arguments, **settings)
trial_writes.finish = finish_too_late
"""
    search = make_search(sqlite_url, "budget.epochs=1", num_trials=2)
    process = start_worker(search, code=code)
    assert process.wait() == 0, process.err
    assert search.states == ["FAIL", "FAIL"]


def test_a_storage_that_does_not_answer_for_a_while_costs_nothing(
    any_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    code = """
import sqlalchemy as sa
from skdtune.queue import trial_writes
write, tries = trial_writes.write_report, iter(range(99))
def away(engine, claimed, epoch, value):
    if epoch < 5 and next(tries) < 2:
        raise sa.exc.OperationalError("INSERT", {}, Exception("the password is hunter2"))
    write(engine, claimed, epoch, value)
trial_writes.write_report = away
"""
    search = make_search(any_url, "budget.epochs=6", num_trials=1)
    worker = start_worker(search, code=code)
    assert worker.wait() == 0
    assert search.states == ["COMPLETE"]
    assert sorted(search.curve(0)) == list(range(6))
    assert "the storage does not answer" in worker.err
    assert "the storage answers again" in worker.err
    assert "hunter2" not in worker.err
    assert search.story(0) == ["claimed", "complete"]


def test_a_worker_gives_up_on_a_storage_that_stays_away_and_the_trial_goes_on_later(
    any_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    code = """
import sqlalchemy as sa
from skdtune.queue import trial_writes
write = trial_writes.write_report
def away(engine, claimed, epoch, value):
    if epoch > 0:
        raise sa.exc.OperationalError("INSERT", {}, Exception("the server closed the connection"))
    write(engine, claimed, epoch, value)
trial_writes.write_report = away
"""
    search = make_search(any_url, "budget.epochs=3", num_trials=1)
    env = {"SKDTUNE_OUTAGE_SECONDS": "0.5", "SKDTUNE_CHECKPOINTS": str(tmp_path / "kept")}
    worker = start_worker(search, code=code, env=env)
    assert worker.wait() == 1
    assert "the storage has not answered for" in worker.err.splitlines()[-1]
    assert search.states == ["WAITING"]
    assert start_worker(search, env=env).wait() == 0
    assert search.states == ["COMPLETE"]
    assert sorted(search.curve(0)) == [0, 1, 2]
    assert search.story(0) == ["claimed", "preempted", "claimed", "resumed", "complete"]


def test_a_connection_that_the_server_closed_between_two_epochs_is_replaced(
    postgres_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    code = f"""
import psycopg
from skdtune.training.trainer import Trainer
train = Trainer._train_epoch
def closing(trainer, epoch, reporter):
    with psycopg.connect({postgres_url.replace("postgresql+psycopg", "postgresql")!r}) as other:
        closed = other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
        ).fetchall()
        print("closed", len(closed), flush=True)
    return train(trainer, epoch, reporter)
Trainer._train_epoch = closing
"""
    search = make_search(postgres_url, num_trials=1)
    worker = start_worker(search, code=code)
    assert worker.wait() == 0, worker.err
    assert search.states == ["COMPLETE"]
    closed = [int(line.split()[1]) for line in worker.out.splitlines()]
    assert len(closed) == 2
    assert all(closed)


def test_a_trial_that_runs_without_a_lease_keeps_no_worker_waiting(
    any_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(any_url, num_trials=2)
    search.stored.study.ask()  # as a script of plain Optuna does, and perhaps dies
    assert start_worker(search).wait() == 0
    assert search.states == ["RUNNING", "COMPLETE"]


def test_a_worker_leaves_a_study_that_was_deleted_with_one_line(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, ENDLESS, num_trials=1)
    worker = start_worker(search)
    search.wait_for_epochs(0)
    optuna.delete_study(study_name=search.name, storage=search.stored.storage)
    assert worker.wait() == 2
    assert "was deleted while this worker ran" in worker.err
    assert "Traceback" not in worker.err


def test_a_worker_does_not_go_on_with_a_study_made_anew_under_the_name(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, ENDLESS, num_trials=1)
    worker = start_worker(search)
    search.wait_for_epochs(0)
    optuna.delete_study(study_name=search.name, storage=search.stored.storage)
    anew = make_search(sqlite_url, "optimizer.lr=0.05", num_trials=1)
    assert worker.wait() == 2
    # It may look in the moment between the two.
    assert re.search(r"was (deleted|made anew) while this worker ran", worker.err)
    assert anew.states == ["WAITING"]
    assert anew.curve(0) == {}


def test_a_study_made_anew_right_before_an_epoch_is_stored_is_not_written_into(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    code = f"""
import optuna
from skdtune.describe.presets import load_spec
from skdtune.queue import trial_writes
from skdtune.queue.stored_study import create_study
write = trial_writes.write_report
def too_late(engine, claimed, epoch, value):
    if epoch == 1:
        spec = load_spec("digits-baseline", name="tiny", num_trials=1)
        optuna.delete_study(study_name="tiny", storage={sqlite_url!r})
        create_study(spec, storage={sqlite_url!r})
        print("made anew")
    write(engine, claimed, epoch, value)
trial_writes.write_report = too_late
"""
    search = make_search(sqlite_url, num_trials=1)
    old = search.stored.study._study_id
    worker = start_worker(search, code=code)
    assert worker.wait() == 2
    assert worker.out == "made anew\n"
    assert "was made anew while this worker ran" in worker.err
    anew = optuna.load_study(study_name="tiny", storage=search.stored.storage)
    assert anew._study_id == old, "the key was not given out again: this test shows nothing"
    assert [trial.state.name for trial in anew.trials] == ["WAITING"]
    assert anew.trials[0].intermediate_values == {}


def test_the_memory_of_the_host_running_out_is_an_oom_too(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    body = "torch.empty(2**58)"
    assert start_worker(search, code=raising(body)).wait() == 0
    assert search.trials[0].user_attrs["failure_kind"] == "oom"
