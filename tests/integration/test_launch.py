"""The supervisor and its workers, as processes that are killed and interrupted."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from optuna.trial import TrialState

from skdtune.queue import leases

MakeSearch = Callable[..., Any]
Start = Callable[..., Any]

ENDLESS = "budget.epochs=20000"

#: Nothing here comes back because a lease ran out.
NO_LEASE_RUNS_OUT = {"SKDTUNE_LEASE_SECONDS": "3600"}


def launch(start: Start, search: Any, **env: str) -> Any:
    command = ["launch", search.name, "--storage", search.url, "--gpus", "none"]
    return start(*command, "--workers", "1", env={**NO_LEASE_RUNS_OUT, **env})


def holder_pids(search: Any) -> set[int]:
    return {int(holder["pid"]) for holder in search.holders}


def test_a_killed_worker_is_replaced_and_its_trial_comes_back_at_once(
    sqlite_url: str, make_search: MakeSearch, start: Start
) -> None:
    search = make_search(sqlite_url, "budget.epochs=100", num_trials=2)
    launched = launch(start, search)
    search.wait_for_epochs(0)
    (victim,) = holder_pids(search)
    # As another container has it, whose host is called the same.
    namesake = leases.WorkerIdentity(device="cpu", pid=victim)
    engine = search.stored.engine
    held = leases.claim(engine, search.stored.study_id, namesake, lease_s=3600)
    assert held is not None
    os.kill(victim, signal.SIGKILL)
    search.wait_for_states("COMPLETE", "RUNNING")
    assert search.story(held.number) == ["claimed"]
    search.stored.storage.set_trial_state_values(held.trial_id, TrialState.FAIL)
    assert launched.wait() == 0
    assert f"trial 0 waits again: its worker {victim} died" in launched.err
    (folder,) = (launched.folder / "home" / "logs").glob("tiny-*/launch-*")
    assert f"logs in {folder}" in launched.err
    assert "trial 0 starts on cpu, attempt 2" in (folder / "worker-0.log").read_text()
    assert "tiny: 1 complete, 0 pruned, 1 failed" in launched.out


def test_two_launches_of_one_study_share_its_trials_and_keep_their_logs(
    sqlite_url: str,
    make_search: MakeSearch,
    start: Start,
    until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    search = make_search(sqlite_url, "budget.epochs=60", num_trials=4)
    both = [launch(start, search, SKDTUNE_HOME=str(tmp_path / "both")) for _ in range(2)]
    until(lambda: len(holder_pids(search)) == 2, "both train")
    assert [launched.wait() for launched in both] == [0, 0]
    assert search.states == ["COMPLETE"] * 4
    assert [search.story(number) for number in range(4)] == [["claimed", "complete"]] * 4
    for launched in both:
        assert "tiny: 4 complete, 0 pruned, 0 failed" in launched.out
        assert "Traceback" not in launched.err
    logs = sorted((tmp_path / "both" / "logs").glob("tiny-*/*/*.log"))
    assert [str(log.relative_to(log.parents[1])) for log in logs] == [
        "launch-001/worker-0.log",
        "launch-002/worker-0.log",
    ]
    said = [log.read_text() for log in logs]
    assert all("worker of tiny on cpu" in text for text in said)
    # Between them they tell of every trial, once.
    started = re.findall(r"trial (\d) starts on cpu", "".join(said))
    assert sorted(started) == ["0", "1", "2", "3"]
    assert not list((tmp_path / "both" / "checkpoints").rglob("*.ckpt"))


def test_ctrl_c_finishes_the_trials_in_hand_and_takes_no_other(
    sqlite_url: str, make_search: MakeSearch, start: Start
) -> None:
    search = make_search(sqlite_url, "budget.epochs=100", num_trials=3)
    launched = launch(start, search)
    search.wait_for_epochs(0)
    launched.send(signal.SIGINT)
    assert launched.wait() == 130
    assert search.states == ["COMPLETE", "WAITING", "WAITING"]
    assert "finishing the trials in hand" in launched.err
    assert "stopped; 2 trials wait: skdtune launch tiny" in launched.err


def test_a_second_ctrl_c_gives_the_trials_back(
    sqlite_url: str, make_search: MakeSearch, start: Start, until: Callable[..., Any]
) -> None:
    search = make_search(sqlite_url, ENDLESS, num_trials=2)
    launched = launch(start, search)
    search.wait_for_epochs(0)
    (worker,) = holder_pids(search)
    launched.send(signal.SIGINT)
    until(lambda: "finishing the trials in hand" in launched.err, "the first was understood")
    assert search.states == ["RUNNING", "WAITING"]
    launched.send(signal.SIGINT)
    assert launched.wait() == 130
    assert search.states == ["WAITING", "WAITING"]
    assert len(search.curve(0)) >= 2
    assert not psutil.pid_exists(worker)
    assert "Traceback" not in launched.err


def test_a_terminated_supervisor_gives_the_trials_back(
    sqlite_url: str, make_search: MakeSearch, start: Start
) -> None:
    search = make_search(sqlite_url, ENDLESS, num_trials=2)
    launched = launch(start, search)
    search.wait_for_epochs(0)
    launched.send(signal.SIGTERM)
    assert launched.wait() == 0
    assert search.states == ["WAITING", "WAITING"]


def test_the_workers_of_a_killed_supervisor_give_their_trials_back_and_leave(
    sqlite_url: str, make_search: MakeSearch, start: Start, until: Callable[..., Any]
) -> None:
    search = make_search(sqlite_url, ENDLESS, num_trials=2)
    launched = launch(start, search, SKDTUNE_LEASE_SECONDS="3")
    search.wait_for_epochs(0)
    (worker,) = holder_pids(search)
    launched.send(signal.SIGKILL)
    assert launched.wait() == -signal.SIGKILL
    until(lambda: not psutil.pid_exists(worker), "the orphan is gone")
    assert search.states == ["WAITING", "WAITING"]
    (log,) = (launched.folder / "home" / "logs").glob("tiny-*/*/worker-0.log")
    assert "trial 0 was given back to the queue" in log.read_text()


def test_a_third_ctrl_c_ends_the_workers_and_their_trials_wait_at_once(
    sqlite_url: str, make_search: MakeSearch, start: Start, until: Callable[..., Any]
) -> None:
    search = make_search(sqlite_url, ENDLESS, num_trials=1)
    launched = launch(start, search)
    search.wait_for_epochs(0)
    (worker,) = holder_pids(search)
    # A worker that hears nothing any more: only the last resort ends it.
    os.kill(worker, signal.SIGSTOP)
    for heard in ("finishing the trials", "giving the trials back", "ending the workers"):
        launched.send(signal.SIGINT)
        until(lambda heard=heard: heard in launched.err, heard)
    assert launched.wait() == 130
    assert not psutil.pid_exists(worker)
    assert search.states == ["WAITING"]


def test_a_study_without_a_complete_trial_is_no_success(
    sqlite_url: str, make_search: MakeSearch, start: Start, tmp_path: Path
) -> None:
    diverging = ["optimizer.lr=1e25", "search.optimizer.lr.low=1e20"]
    search = make_search(sqlite_url, *diverging, "search.optimizer.lr.high=1e30", num_trials=2)
    # That the kernels cannot be built is said here, and not only in the logs of the workers.
    launched = launch(start, search, CC="/bin/false", SKDTUNE_NATIVE=str(tmp_path / "native"))
    assert launched.wait() == 1
    assert "tiny: 0 complete, 2 pruned, 0 failed" in launched.out
    assert "the kernels cannot be built: /bin/false failed" in launched.err
    assert {trial.user_attrs["kernels"] for trial in search.trials} == {"torch"}


def test_a_launch_outlives_a_restart_of_the_database(
    make_search: MakeSearch, start: Start, until: Callable[..., Any]
) -> None:
    from pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="skdtune-pg-") as folder:
        server = get_server(folder)
        url = f"postgresql+psycopg://postgres:@/postgres?host={folder}"
        try:
            search = make_search(url, "budget.epochs=150", num_trials=2)
            launched = launch(start, search, SKDTUNE_LEASE_SECONDS="3")
            search.wait_for_epochs(0)
            search.stored.close()
            server.cleanup()
            until(lambda: "the storage does not answer" in launched.err, "it is noticed")
            server = get_server(folder)
            assert launched.wait() == 0
            assert search.states == ["COMPLETE", "COMPLETE"]
            search.stored.close()
        finally:
            server.cleanup()
