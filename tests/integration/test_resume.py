"""Trials that are cut off go on at the exact epoch, on whatever worker takes them next."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]

EPOCHS = 12
TRIAL = {"preset": "digits-drg-dsr", "num_trials": 1}

#: Keep the weights of every finished trial, to compare them bit by bit.
KEEP_WEIGHTS = """
import torch
from skdtune.training.trainer import Trainer
run = Trainer.run
def keep(trainer, reporter, **settings):
    verdict = run(trainer, reporter, **settings)
    torch.save([trainer.network.state_dict(), trainer.terms.state_dict()], {path!r})
    return verdict
Trainer.run = keep
"""

#: The process dies in the middle of an epoch, some steps after the start.
DIE_IN_EPOCH = """
import os, signal
from skdtune.training.trainer import Trainer
step, seen = Trainer._train_step, []
def die(trainer, batch, epoch):
    seen.append(epoch)
    if epoch == {epoch} and seen.count(epoch) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(trainer, batch, epoch)
Trainer._train_step = die
"""


def shared(folder: Path, **more: str) -> dict[str, str]:
    return {"SKDTUNE_CHECKPOINTS": str(folder / "kept"), "SKDTUNE_LEASE_SECONDS": "1", **more}


def files(folder: Path) -> list[Path]:
    return sorted((folder / "kept").glob("**/*.ckpt"))


@pytest.fixture(scope="module")
def undisturbed(
    module_search: Callable[..., Any],
    module_start_worker: StartWorker,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, list[Any]]:
    """Run the trial once without any trouble; return it and its weights."""
    import torch

    folder = tmp_path_factory.mktemp("undisturbed")
    search = module_search(f"sqlite:///{folder}/study.db", f"budget.epochs={EPOCHS}", **TRIAL)
    code = KEEP_WEIGHTS.format(path=str(folder / "weights"))
    assert module_start_worker(search, code=code).wait() == 0
    return search.trials[0], torch.load(folder / "weights")


def test_a_trial_that_was_killed_five_times_is_bit_equal_to_one_that_was_not(
    any_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    undisturbed: tuple[Any, list[Any]],
    tmp_path: Path,
) -> None:
    import torch

    search = make_search(any_url, f"budget.epochs={EPOCHS}", **TRIAL)
    killed_in = [0, 2, 3, 7, 11]
    for epoch in killed_in:
        victim = start_worker(search, code=DIE_IN_EPOCH.format(epoch=epoch), env=shared(tmp_path))
        assert victim.wait() == -signal.SIGKILL
        assert sorted(search.curve(0)) == list(range(epoch)), "the epochs before it are stored"
        assert len(files(tmp_path)) == min(epoch, 2)
    code = KEEP_WEIGHTS.format(path=str(tmp_path / "weights"))
    assert start_worker(search, code=code, env=shared(tmp_path)).wait() == 0

    before, weights = undisturbed
    after = search.trials[0]
    assert after.state.name == "COMPLETE"
    assert after.params == before.params
    assert after.value == before.value
    assert after.intermediate_values == before.intermediate_values
    assert after.user_attrs["losses"] == before.user_attrs["losses"]
    for ours, theirs in zip(torch.load(tmp_path / "weights"), weights, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, theirs[name]), name
    kinds = search.story(0)
    assert kinds.count("claimed") == 6
    assert kinds.count("lost") == 5
    assert kinds.count("resumed") == 4
    assert kinds.count("restarted") == 1, "killed before its first checkpoint"
    assert files(tmp_path) == []


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    undisturbed: tuple[Any, list[Any]],
    tmp_path: Path,
) -> None:
    search = make_search(sqlite_url, f"budget.epochs={EPOCHS}", **TRIAL)
    start_worker(search, code=DIE_IN_EPOCH.format(epoch=5), env=shared(tmp_path)).wait()
    newest = files(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    heir = start_worker(search, env=shared(tmp_path))
    assert heir.wait() == 0
    assert f"{newest.name} is not used: it is damaged" in heir.err
    assert "trial 0 goes on after epoch 4" in heir.err
    assert search.story(0) == ["claimed", "lost", "claimed", "noted", "resumed", "complete"]
    assert search.trials[0].intermediate_values == undisturbed[0].intermediate_values


def test_checkpoints_that_are_all_of_no_use_cost_the_epochs_and_nothing_else(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    undisturbed: tuple[Any, list[Any]],
    tmp_path: Path,
) -> None:
    search = make_search(sqlite_url, f"budget.epochs={EPOCHS}", **TRIAL)
    start_worker(search, code=DIE_IN_EPOCH.format(epoch=3), env=shared(tmp_path)).wait()
    for file in files(tmp_path):
        file.write_bytes(file.read_bytes()[:100])
    heir = start_worker(search, env=shared(tmp_path))
    assert heir.wait() == 0
    assert "trial 0 starts over" in heir.err
    assert search.trials[0].intermediate_values == undisturbed[0].intermediate_values


HOSTILE = """
import pathlib
from skdtune.training import checkpoint
import torch
class Evil:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path({trap!r}),))
save = torch.save
checkpoint.torch.save = lambda content, file: save(Evil(), file)
"""


def test_a_checkpoint_that_would_execute_something_is_refused(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    search = make_search(sqlite_url, "budget.epochs=4", **TRIAL)
    trap = tmp_path / "trap"
    code = HOSTILE.format(trap=str(trap)) + DIE_IN_EPOCH.format(epoch=2)
    start_worker(search, code=code, env=shared(tmp_path)).wait()
    assert len(files(tmp_path)) == 2
    heir = start_worker(search, env=shared(tmp_path))
    assert heir.wait() == 0
    assert heir.err.count("is not used") == 2
    assert not trap.exists()
    assert search.states == ["COMPLETE"]


def test_the_checkpoints_of_a_deleted_study_are_not_those_of_its_namesake(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    import optuna

    search = make_search(sqlite_url, "budget.epochs=4", **TRIAL)
    start_worker(search, code=DIE_IN_EPOCH.format(epoch=2), env=shared(tmp_path)).wait()
    left = files(tmp_path)
    assert len(left) == 2
    optuna.delete_study(study_name=search.name, storage=search.stored.storage)
    anew = make_search(sqlite_url, "budget.epochs=4", **TRIAL)
    assert start_worker(anew, env=shared(tmp_path)).wait() == 0
    assert anew.story(0) == ["claimed", "complete"]
    assert files(tmp_path) == left


#: The disk is full from the third checkpoint to the fifth.
DISK_FULL = """
import errno, os
fsync, calls = os.fsync, iter(range(1, 99))
def full(descriptor):
    # Each checkpoint is synchronised twice: the file, then its folder.
    number = next(calls)
    if {first} <= number <= {last}:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return fsync(descriptor)
os.fsync = full
"""


def test_a_trial_outlives_a_full_disk_and_says_so_once(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    undisturbed: tuple[Any, list[Any]],
    tmp_path: Path,
) -> None:
    search = make_search(sqlite_url, f"budget.epochs={EPOCHS}", **TRIAL)
    code = DISK_FULL.format(first=5, last=7)
    worker = start_worker(search, code=code, env=shared(tmp_path))
    assert worker.wait() == 0
    assert worker.err.count("it goes on WITHOUT new checkpoints") == 1
    assert "No space left on device" in worker.err
    assert worker.err.count("checkpoints are written again") == 1
    assert search.trials[0].intermediate_values == undisturbed[0].intermediate_values
    assert search.story(0) == ["claimed", "noted", "noted", "complete"]
    assert not list((tmp_path / "kept").glob("**/*.tmp"))


def test_a_checkpoint_folder_that_vanished_or_cannot_be_written_stops_no_trial(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    search = make_search(sqlite_url, "budget.epochs=3", **TRIAL)
    (tmp_path / "kept").write_text("a file where the folder should be")
    worker = start_worker(search, env=shared(tmp_path))
    assert worker.wait() == 0
    assert search.states == ["COMPLETE"]
    assert worker.err.count("it goes on WITHOUT new checkpoints") == 1
    assert "Traceback" not in worker.err


def test_an_epoch_whose_end_is_near_is_finished_before_a_worker_leaves(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    code = """
import os, signal
from skdtune.training.trainer import Trainer
step, seen = Trainer._train_step, []
def ask(trainer, batch, epoch):
    seen.append(epoch)
    if epoch == 2 and seen.count(epoch) == 2:
        # As Slurm does it.
        os.kill(os.getpid(), signal.SIGCONT)
        os.kill(os.getpid(), signal.SIGTERM)
    return step(trainer, batch, epoch)
Trainer._train_step = ask
"""
    search = make_search(sqlite_url, "budget.epochs=6", **TRIAL)
    grace = shared(tmp_path, SKDTUNE_GRACE_SECONDS="60")
    assert start_worker(search, code=code, env=grace).wait() == 0
    assert sorted(search.curve(0)) == [0, 1, 2], "the epoch of the signal is there"
    assert search.states == ["WAITING"]
    assert len(files(tmp_path)) == 2
    # Without any grace the epoch is left at once, and the one before is what remains.
    code = code.replace("epoch == 2", "epoch == 4")
    none = shared(tmp_path, SKDTUNE_GRACE_SECONDS="0")
    assert start_worker(search, code=code, env=none).wait() == 0
    assert sorted(search.curve(0)) == [0, 1, 2, 3]
    assert start_worker(search, env=shared(tmp_path)).wait() == 0
    assert search.states == ["COMPLETE"]
    assert [event.epochs for event in search.events(0) if event.kind == "resumed"] == [3, 4]


def test_a_worker_that_wakes_after_its_trial_was_taken_harms_no_checkpoint(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    undisturbed: tuple[Any, list[Any]],
    until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    stop_itself = """
import os, signal
from skdtune.training.trainer import Trainer
train = Trainer._train_epoch
def stop(trainer, epoch, reporter):
    losses = train(trainer, epoch, reporter)
    if epoch == {epoch}:
        os.kill(os.getpid(), signal.SIGSTOP)
    return losses
Trainer._train_epoch = stop
"""

    def is_stopped(worker: Any) -> bool:
        return bool(psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)

    search = make_search(sqlite_url, f"budget.epochs={EPOCHS}", **TRIAL)
    sleeper = start_worker(search, code=stop_itself.format(epoch=4), env=shared(tmp_path))
    until(lambda: is_stopped(sleeper), "the first worker sleeps")
    heir = start_worker(search, code=stop_itself.format(epoch=8), env=shared(tmp_path))
    until(lambda: is_stopped(heir), "the second worker sleeps, with the trial in hand")
    written = {path.name: path.read_bytes() for path in files(tmp_path)}
    assert all(".attempt-002." in name for name in written)
    sleeper.send(signal.SIGCONT)
    until(lambda: "trial 0 was taken over" in sleeper.err, "the first worker finds out")
    assert {path.name: path.read_bytes() for path in files(tmp_path)} == written
    os.kill(heir.pid, signal.SIGCONT)
    # One of the two finishes it: the second worker slept through its lease, too.
    assert sleeper.wait() == 0
    assert heir.wait() == 0
    assert search.trials[0].intermediate_values == undisturbed[0].intermediate_values
    assert search.trials[0].value == undisturbed[0].value
    assert search.story(0).count("complete") == 1


def test_checkpoints_that_a_worker_died_over_go_with_the_next_one_that_ends(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    die_before_deleting = """
import os, signal
from skdtune.training.checkpoint import TrialCheckpoints
TrialCheckpoints.delete = lambda self: os.kill(os.getpid(), signal.SIGKILL)
"""
    search = make_search(sqlite_url, "budget.epochs=2", preset="digits-drg-dsr", num_trials=2)
    victim = start_worker(search, code=die_before_deleting, env=shared(tmp_path))
    assert victim.wait() == -signal.SIGKILL
    assert search.states == ["COMPLETE", "WAITING"]
    assert len(files(tmp_path)) == 2
    assert start_worker(search, env=shared(tmp_path)).wait() == 0
    assert search.states == ["COMPLETE", "COMPLETE"]
    assert files(tmp_path) == []
