"""What a study does about trials that fail, and how a person steers it while workers train."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skdtune.queue import leases
from skdtune.queue.trial_budget import set_budget

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]
Start = Callable[..., Any]

FAIL_SOMETIMES = """
from skdtune.training.trainer import Trainer
import torch
train, count = Trainer._train_epoch, iter(range(999))
def fail(trainer, epoch, reporter):
    number = next(count)
    if {condition}:
        {body}
    return train(trainer, epoch, reporter)
Trainer._train_epoch = fail
"""


def failing(condition: str, body: str) -> str:
    return FAIL_SOMETIMES.format(condition=condition, body=body)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("raise torch.OutOfMemoryError('CUDA out of memory')", "oom"),
        ("raise RuntimeError('a cable came loose')", "error"),
    ],
)
def test_a_failure_with_a_retry_left_goes_on_from_its_checkpoint(
    body: str, kind: str, any_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    retry = f"faults.retries.{kind}=1"
    search = make_search(any_url, "budget.epochs=4", retry, num_trials=2)
    worker = start_worker(search, code=failing("number == 2", body))
    assert worker.wait() == 0
    assert search.states == ["COMPLETE", "COMPLETE"]
    assert search.story(0) == ["claimed", kind, "claimed", "resumed", "complete"]
    assert [event.epochs for event in search.events(0)] == [0, 2, 0, 2, 4]
    assert "failure_kind" not in search.trials[0].user_attrs


def test_when_its_retries_are_used_up_a_trial_fails_with_its_traceback(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, "budget.epochs=2", "faults.retries.error=2", num_trials=1)
    code = failing("True", "raise RuntimeError('a cable came loose')")
    assert start_worker(search, code=code).wait() == 0
    assert search.states == ["FAIL"]
    kinds = [kind for kind in search.story(0) if kind in ("claimed", "error")]
    assert kinds == ["claimed", "error"] * 3
    last = search.events(0)[-1]
    assert last.detail.startswith("RuntimeError: a cable came loose\n")
    assert re.search(r"in fail\n.*RuntimeError: a cable came loose$", last.detail, re.DOTALL)
    attributes = search.trials[0].user_attrs
    assert attributes["failure_reason"] == "RuntimeError: a cable came loose"


def test_a_trial_that_kills_every_worker_is_given_up(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, "budget.epochs=2", "faults.retries.lost=1", num_trials=1)
    body = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    env = {"SKDTUNE_LEASE_SECONDS": "1"}
    for _ in range(2):
        victim = start_worker(search, code=failing("True", body), env=env)
        assert victim.wait() == -signal.SIGKILL
    heir = start_worker(search, env=env)
    assert heir.wait() == 0
    assert search.states == ["FAIL"]
    assert search.trials[0].user_attrs["failure_kind"] == "lost"
    assert "trial 0 ended (lost): 2 workers died on it" in heir.err


def test_a_trial_that_takes_too_long_ends_as_a_timeout_and_the_worker_goes_on(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, "faults.max_trial_seconds=3", num_trials=2)
    code = failing("number < 2", "import time; time.sleep(2)")
    worker = start_worker(search, code=code)
    assert worker.wait() == 0
    assert search.states == ["FAIL", "COMPLETE"]
    assert search.trials[0].user_attrs["failure_kind"] == "timeout"
    assert "max_trial_seconds=3" in search.trials[0].user_attrs["failure_reason"]
    assert len(search.curve(0)) == 1


def test_a_training_that_hangs_is_ended_and_the_worker_starts_again(
    sqlite_url: str, make_search: MakeSearch, start: Start, tmp_path: Path
) -> None:
    """The process replaces itself: what the test injects is gone then, as a hang may be."""
    search = make_search(
        sqlite_url, "faults.max_epoch_seconds=1", "faults.retries.timeout=1", num_trials=1
    )
    code = """
import time
from skdtune.worker.hooks import time_limits
time_limits.HANG_S = 0.5
from skdtune.training.trainer import Trainer
def hang(trainer, batch, epoch):
    time.sleep(3600)
Trainer._train_step = hang
import sys
sys.argv[1:] = ["-v", "worker", "tiny", "--storage", URL, "--device", "cpu"]
""".replace("URL", repr(search.url))
    process = start(
        *["worker", search.name, "--storage", search.url, "--device", "cpu"], code=code
    )
    assert process.wait() == 0, process.err
    assert "trial 0 hangs: an epoch took longer than max_epoch_seconds=1" in process.err
    assert search.states == ["COMPLETE"]
    assert search.story(0) == ["claimed", "timeout", "claimed", "restarted", "complete"]


def test_a_trial_that_ran_out_of_memory_leaves_a_worker_that_can_use_it_again(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    body = "ballast = torch.empty(2**28); raise torch.OutOfMemoryError('out')"
    code = failing("number == 0", body) + (
        "\nimport gc, types\n"
        "from skdtune.worker import worker as w\n"
        "def show():\n"
        "    gc.collect()\n"
        "    big = [o for o in gc.get_objects() if isinstance(o, torch.Tensor)\n"
        "           and o.numel() >= 2**28]\n"
        "    print('left', len(big), flush=True)\n"
        "w.gc = types.SimpleNamespace(collect=show)\n"
    )
    search = make_search(sqlite_url, num_trials=2)
    worker = start_worker(search, code=code)
    assert worker.wait() == 0
    assert search.states == ["FAIL", "COMPLETE"]
    assert worker.out == "left 0\n"


def test_the_budget_is_raised_and_lowered_while_workers_train(
    any_url: str, make_search: MakeSearch, start_held_worker: StartWorker, start: Start
) -> None:
    search = make_search(any_url, num_trials=2)
    worker = start_held_worker(search)
    search.wait_for_epochs(0, 1)
    command = ["budget", search.name]
    raised = start(*command, "6", "--storage", any_url)
    assert raised.wait() == 0
    assert raised.out == "tiny has 6 trials, 2 before\n"
    assert search.states[1:] == ["WAITING"] * 5
    lowered = start(*command, "3", "--storage", any_url)
    assert lowered.wait() == 0
    worker.let_go()
    assert worker.wait() == 0
    assert search.states == ["COMPLETE"] * 3
    refused = start(*command, "2", "--storage", any_url)
    assert refused.wait() == 2
    assert refused.err == (
        "skdtune: trials up to number 2 have begun: the budget cannot be lower than 3, "
        "received 2\n"
    )
    assert search.states == ["COMPLETE"] * 3


def test_no_two_budgets_at_once_make_a_number_twice(
    any_url: str, make_search: MakeSearch, start: Start
) -> None:
    search = make_search(any_url, num_trials=1)
    code = (
        "from skdtune.queue.stored_study import load_study\n"
        "from skdtune.queue.trial_budget import set_budget\n"
        f"stored = load_study('tiny', storage={any_url!r})\n"
        "for number in range(2, 40):\n"
        "    set_budget(stored.engine, stored.study_id, number)\n"
    )
    processes = [start(code=code) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    numbers = [trial.number for trial in search.trials]
    assert numbers == list(range(len(numbers)))
    assert set_budget(search.stored.engine, search.stored.study_id, 40) <= 40
    assert len(search.trials) == 40


def test_a_paused_study_says_so_and_goes_on_when_it_is_resumed(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, start: Start
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    at = ["--storage", sqlite_url]
    assert start("pause", "tiny", "--reason", "the disk is slow", *at).wait() == 0
    shown = start("status", "tiny", *at)
    assert shown.wait() == 0
    assert "PAUSED: the disk is slow; skdtune resume tiny" in shown.out
    plain = start("status", "tiny", "--json", *at)
    assert plain.wait() == 0
    assert json.loads(plain.out)["paused"] == "the disk is slow"
    worker = start_worker(search)
    assert worker.wait() == 4
    assert worker.err.splitlines()[-1] == (
        "skdtune: study tiny is paused: the disk is slow; mend it, then `skdtune resume tiny`"
    )
    resumed = start("resume", "tiny", *at)
    assert resumed.wait() == 0
    assert resumed.out.startswith("tiny goes on")
    again = start("resume", "tiny", *at)
    assert (again.wait(), again.out) == (0, "tiny was not paused\n")
    assert start_worker(search).wait() == 0
    assert search.states == ["COMPLETE"]


def test_the_story_of_a_trial_can_be_read(
    any_url: str, make_search: MakeSearch, start_worker: StartWorker, start: Start
) -> None:
    search = make_search(any_url, "budget.epochs=4", num_trials=2)
    body = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    env = {"SKDTUNE_GRACE_SECONDS": "0"}
    assert start_worker(search, code=failing("number == 2", body), env=env).wait() == 0
    code = failing("number == 1", "raise RuntimeError('a cable came loose')")
    assert start_worker(search, "--max-trials", "1", code=code).wait() == 0

    told = start("explain", "tiny", "0", "--storage", any_url)
    assert told.wait() == 0
    first, *lines = told.out.splitlines()
    assert first.startswith("Trial 0 of tiny is failed after 1 epochs")
    assert "2 attempts by 2 workers, 2 finished epochs trained again" in first
    for number, kind in ((1, "claimed"), (1, "preempted"), (2, "restarted"), (2, "error")):
        assert any(re.search(rf"\b{number}  {kind}\b", line) for line in lines), kind
    assert lines[-1] == "RuntimeError: a cable came loose"

    plain = start("explain", "tiny", "0", "--json", "--storage", any_url)
    assert plain.wait() == 0
    story = json.loads(plain.out)
    kinds = [event["kind"] for event in story["events"]]
    assert kinds == ["claimed", "preempted", "claimed", "restarted", "error"]
    assert story["epochs_repeated"] == 2
    assert story["trial"]["failure_kind"] == "error"

    fresh = start("explain", "tiny", "1", "--storage", any_url)
    assert fresh.wait() == 0
    assert "is waiting: nobody has taken it yet" in fresh.out
    missing = start("explain", "tiny", "7", "--storage", any_url)
    assert missing.wait() == 2
    assert missing.err == "skdtune: study 'tiny' has trials 0 to 1, none with number 7\n"


def test_a_pruned_trial_tells_what_it_was_compared_with(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(
        sqlite_url,
        "budget.epochs=3",
        "pruner={name: asha, min_epochs: 1}",
        "optimizer.lr=0.05",
        "search.optimizer.lr.low=1e-9",
        "search.optimizer.lr.high=0.05",
        num_trials=4,
    )
    assert start_worker(search).wait() == 0
    pruned = [n for n, state in enumerate(search.states) if state == "PRUNED"]
    assert pruned, search.states
    last = search.events(pruned[0])[-1]
    assert last.kind == "pruned"
    assert re.match(r"after epoch \d with \d+\.\d\d%: place \d of the \d trials seen", last.detail)


def test_many_workers_never_begin_a_trial_beyond_the_budget(
    any_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(any_url, "budget.epochs=1", num_trials=3)
    workers = [start_worker(search, "--max-trials", "2") for _ in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    assert search.states == ["COMPLETE"] * 3
    assert sum(search.story(number).count("claimed") for number in range(3)) == 3
    assert leases.holders(search.stored.engine, search.stored.study_id) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("LEASE", "soon"), ("LEASE", "0"), ("OUTAGE", "-1"), ("GRACE", "inf"), ("GRACE", "nan")],
)
def test_a_time_that_is_none_is_refused_before_a_trial_is_taken(
    name: str, value: str, sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    worker = start_worker(search, env={f"SKDTUNE_{name}_SECONDS": value})
    assert worker.wait() == 2
    (line,) = worker.err.splitlines()
    assert line.startswith(f"skdtune: SKDTUNE_{name}_SECONDS: expected at least ")
    assert search.states == ["WAITING"]


def test_waiting_for_the_storage_is_no_training_time(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    """The storage is away for longer than the limits, at the start of a trial and at its end."""
    code = """
import time
import sqlalchemy as sa
from skdtune.queue import trial_writes
from skdtune.worker.hooks import time_limits
time_limits.HANG_S = 0.1
def away(name):
    real, until = getattr(trial_writes, name), []
    def call(*arguments, **settings):
        until.append(time.monotonic() + 4)
        if time.monotonic() < until[0]:
            raise sa.exc.OperationalError(name, {}, Exception("gone"))
        return real(*arguments, **settings)
    setattr(trial_writes, name, call)
away("write_params")
away("finish")
"""
    limits = ["faults.max_epoch_seconds=3", "faults.max_trial_seconds=3.5"]
    search = make_search(sqlite_url, *limits, num_trials=1)
    worker = start_worker(search, code=code)
    assert worker.wait() == 0
    assert search.states == ["COMPLETE"]
    assert search.story(0) == ["claimed", "complete"]
    assert "1 trials finished by this worker" in worker.err


def test_trainings_that_ended_leave_the_memory(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    code = """
import gc, weakref
gc.disable()
from skdtune.training.trainer import Trainer
run, alive = Trainer.run, []
def count(trainer, reporter, **settings):
    print(sum(reference() is not None for reference in alive), flush=True)
    alive.append(weakref.ref(trainer))
    return run(trainer, reporter, **settings)
Trainer.run = count
"""
    search = make_search(sqlite_url, "budget.epochs=1", num_trials=4)
    worker = start_worker(search, code=code)
    assert worker.wait() == 0
    assert worker.out.split() == ["0"] * 4
