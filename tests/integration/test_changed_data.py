"""Data that change: no trial learns from other images than those that its study was begun with."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from data_makers import imagefolder

import skdtune
from skdtune.cli.main import cli
from skdtune.queue.final_evaluation import create_evaluation
from skdtune.queue.pinned_source import read_pins

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]

#: The process dies within the transaction in which it claims, its pin written.
DIE_WHILE_PINNING = """
import os, signal
from skdtune.queue import pinned_source
write = pinned_source._write
def die(*args):
    write(*args)
    os.kill(os.getpid(), signal.SIGKILL)
pinned_source._write = die
"""

#: It has looked at its data and at the study, and claims only when the other one has, too.
MEET_BEFORE_THE_CLAIM = """
import pathlib, time
from skdtune.queue.trial_queue import TrialQueue
claim = TrialQueue.claim
def meet(queue, worker, sources=None):
    folder = pathlib.Path({folder!r})
    (folder / worker.token).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    return claim(queue, worker, sources)
TrialQueue.claim = meet
"""

#: The same folder holds other images on this machine.
ANOTHER_MACHINE = """
from skdtune.data import loading, source
request = loading.part_request
def here(config, split, data_dir):
    return request(config.model_copy(update={{"root": {root!r}}}), split, data_dir)
loading.part_request = source.part_request = here
"""

#: Between the first two trials the images change under the worker.
CHANGE_BETWEEN_TRIALS = """
import pathlib
from skdtune.worker.worker import Worker
take = Worker.take
def changed(worker, claim):
    if claim.number == 1:
        path = pathlib.Path({path!r})
        path.write_bytes((path.parent / "000.png").read_bytes())
    take(worker, claim)
Worker.take = changed
"""

SETTINGS = ("data.max_per_class=null", "data.batch_size=8", "data.image_size=8")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    imagefolder.make(tmp_path / "pets", train=12, test=2)
    return tmp_path / "pets"


@pytest.fixture
def make_pets(make_search: MakeSearch, pets: Path) -> Callable[..., Any]:
    """Create a study of these images."""

    def make(url: str, *more: str, **settings: Any) -> Any:
        root, preset = f"data.root={pets}", "imagefolder-baseline"
        return make_search(url, root, *SETTINGS, *more, preset=preset, name="pets", **settings)

    return make


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """One home for all processes of a test."""
    return {"SKDTUNE_HOME": str(tmp_path / "skdtune")}


def permute(pets: Path) -> None:
    train = pets / "train"
    (train / "cat").rename(train / "aside")
    (train / "dog").rename(train / "cat")
    (train / "aside").rename(train / "dog")


def pinned(search: Any) -> dict[str, Any]:
    return dict(read_pins(search.stored.engine, search.stored.study_id, "pets"))


def test_a_trial_does_not_go_on_with_permuted_labels(
    pets: Path,
    make_pets: MakeSearch,
    start_held_worker: Callable[..., Any],
    start_worker: StartWorker,
    sqlite_url: str,
    env: dict[str, str],
) -> None:
    search = make_pets(sqlite_url, num_trials=1)
    env |= {"SKDTUNE_LEASE_SECONDS": "0.5"}
    assert pinned(search) == {}
    killed = start_held_worker(search, env=env)
    search.wait_for_epochs(0, 1)
    killed.send(signal.SIGKILL)
    killed.wait()
    source = pinned(search)["train"]
    assert [(one.name, one.num_images) for one in source.classes] == [("cat", 12), ("dog", 12)]
    assert search.trials[0].user_attrs["source"] == source.digest
    (checkpoint,) = Path(env["SKDTUNE_HOME"]).glob("checkpoints/*/*/*.ckpt")
    assert json.loads(checkpoint.read_bytes().split(b"\n", 2)[1])["source"] == source.digest

    permute(pets)
    for refused in (start_worker(search, env=env), start_worker(search, "--prepare", env=env)):
        assert refused.wait() == 2
        assert refused.err.splitlines()[-1] == (
            "skdtune: study 'pets' was begun with other training images than "
            f"{pets}/train has now: the images of class 'cat' are other ones "
            "(cat/000.png was changed); use the same data, or create a new study"
        )
    assert search.story(0) == ["claimed"]
    permute(pets)
    again = start_worker(search, env=env)
    assert again.wait() == 0, again.err
    assert search.story(0) == ["claimed", "lost", "claimed", "resumed", "complete"]


def test_a_worker_killed_while_it_pins_leaves_nothing(
    pets: Path, make_pets: MakeSearch, start_worker: StartWorker, any_url: str, tmp_path: Path
) -> None:
    """And of two that begin with different data, at one moment, one takes no trial."""
    search = make_pets(any_url, num_trials=2)
    assert start_worker(search, code=DIE_WHILE_PINNING).wait() == -signal.SIGKILL
    assert pinned(search) == {}
    assert search.states == ["WAITING"] * 2
    assert search.holders == []

    other = tmp_path / "other pets"
    shutil.copytree(pets, other)
    permute(other)
    (tmp_path / "meeting").mkdir()
    meet = MEET_BEFORE_THE_CLAIM.format(folder=str(tmp_path / "meeting"))
    elsewhere = ANOTHER_MACHINE.format(root=str(other))
    workers = [start_worker(search, code=meet + more) for more in ("", elsewhere)]
    codes = [worker.wait() for worker in workers]
    assert sorted(codes) == [0, 2]
    loser = workers[codes.index(2)]
    assert "study 'pets' was begun with other training images than " in loser.err
    assert "Traceback" not in loser.err
    assert search.states == ["COMPLETE"] * 2
    (source,) = {trial.user_attrs["source"] for trial in search.trials}
    assert source == pinned(search)["train"].digest


def test_images_that_change_under_a_worker_end_it_and_no_trial(
    pets: Path,
    make_pets: MakeSearch,
    start_worker: StartWorker,
    sqlite_url: str,
    env: dict[str, str],
) -> None:
    sizes = "search={data.image_size: {type: choice, choices: [8, 9]}}"
    search = make_pets(sqlite_url, sizes, "enqueue=[{data.image_size: 9}]", num_trials=2)
    path = pets / "train" / "cat" / "003.png"
    worker = start_worker(search, code=CHANGE_BETWEEN_TRIALS.format(path=str(path)), env=env)
    assert worker.wait() == 2
    assert "the images of class 'cat' are other ones (cat/003.png was changed)" in worker.err
    assert "Traceback" not in worker.err
    assert search.states == ["COMPLETE", "WAITING"]
    assert search.story(1) == ["claimed", "preempted"]


def test_an_evaluation_refuses_changed_images_before_any_training(
    pets: Path,
    make_pets: MakeSearch,
    start_worker: StartWorker,
    sqlite_url: str,
    env: dict[str, str],
) -> None:
    search = make_pets(sqlite_url, num_trials=1)
    searched = start_worker(search, env=env)
    assert searched.wait() == 0, searched.err
    name = create_evaluation("pets", num_seeds=1, storage=sqlite_url)
    evaluation = SimpleNamespace(name=name, url=sqlite_url)
    moved = pets / "train" / "dog" / "000.png"
    moved.rename(moved.with_name("zzz.png"))
    # What `evaluate` runs before it starts a worker.
    refused = start_worker(evaluation, "--prepare", env=env)
    assert refused.wait() == 2
    assert "study 'pets.test' was begun with other training images than " in refused.err
    assert "(dog/000.png is gone)" in refused.err
    moved.with_name("zzz.png").rename(moved)
    done = start_worker(evaluation, env=env)
    assert done.wait() == 0, done.err
    # The test images are pinned with its first training.
    (pets / "test" / "cat" / "000.png").unlink()
    create_evaluation("pets", num_seeds=2, storage=sqlite_url)
    refused = start_worker(evaluation, env=env)
    assert refused.wait() == 2
    assert refused.err.splitlines()[-1] == (
        f"skdtune: study 'pets.test' was begun with other test images than {pets}/test has now: "
        "class 'cat' has 1 of them, not 2 (cat/000.png is gone); use the same data, or evaluate "
        "under another --name"
    )


def test_a_mixture_of_an_older_study_is_said_wherever_it_is_looked_at(
    make_search: MakeSearch,
    finish_trials: Callable[..., None],
    sqlite_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SKDTUNE_STORAGE", sqlite_url)

    def run(*arguments: str) -> str:
        answer = CliRunner().invoke(cli, arguments)
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    def says(*arguments: str) -> bool:
        text = " ".join(run(*arguments).split())
        return all(sentence in text for sentence in said)

    make_search(sqlite_url, name="old", num_trials=2)
    for images, kernels in ("an", "bt"):
        told = {"test_accuracy": 0.5, "data_fingerprint": images, "kernels": kernels}
        finish_trials(sqlite_url, "old", told)
    said = (
        "The trials of old learned from, or were judged on, different images (a in 1, b in 1): "
        "their values must not be compared; create a new study.",
        "The trials of old were not computed alike (kernels: n in 1, t in 1): values that lie "
        "close together may differ by that alone.",
    )
    for command in (["status", "old"], ["best", "old"], ["explain", "old", "1"]):
        assert says(*command), command
        assert json.loads(run(*command, "--json"))["mixtures"] == list(said)
    assert says("trials", "old")
    assert skdtune.results("old").mixtures == said
    run("report", "old", "-o", str(tmp_path / "page.html"), "--no-dashboard")
    assert all(sentence in (tmp_path / "page.html").read_text() for sentence in said)
    run("evaluate", "old", "--seeds", "1", "--queue-only")
    scores = {f"test_{name}": 0.5 for name in ("accuracy", "top5", "ece", "nll")}
    finish_trials(sqlite_url, "old.test", scores | {"data_fingerprint": "c"})
    assert says("evaluate", "old", "--gpus", "none")
    assert json.loads(run("evaluate", "old", "--gpus", "none", "--json"))["mixtures"] == [*said]
    assert says("compare", "old")
