"""Final evaluations by real workers: killed and resumed, and the wall that a search runs into."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skdtune.analysis.evaluation_results import evaluated, evaluation_results
from skdtune.queue import events
from skdtune.queue.final_evaluation import create_evaluation
from skdtune.queue.stored_study import StoredStudy, load_study

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]

EPOCHS = 4

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

#: The process dies after the last epoch, when it is about to look at the test images.
DIE_BEFORE_THE_TEST = """
import os, signal
from skdtune.data.store import DataStore
DataStore.test = lambda self, config: os.kill(os.getpid(), signal.SIGKILL)
"""

#: The process dies with the scores in hand, before they are stored.
DIE_AFTER_THE_TEST = """
import os, signal
from skdtune.queue import trial_writes
trial_writes.finish = lambda *args, **more: os.kill(os.getpid(), signal.SIGKILL)
"""

#: Remember what was opened of the test images, and when.
WATCH_THE_WALL = """
import skdtune.data.catalogue as registry
from skdtune.training.trainer import Trainer
load, train = registry.load_part, Trainer._train_epoch
def watched(config, split, **folders):
    print("loads", split, flush=True)
    return load(config, split, **folders)
def trained(trainer, epoch, reporter):
    print("trains", epoch, flush=True)
    return train(trainer, epoch, reporter)
registry.load_part = watched
Trainer._train_epoch = trained
"""

#: A search whose code comes to ask for the test images, as a mistake in a method would.
ASK_FOR_THE_TEST = """
from pathlib import Path
from skdtune.data.loading import load_part
from skdtune.training.trainer import Trainer
def ask(trainer, batch, epoch):
    nowhere = Path("nowhere")
    load_part(trainer.config.data, "test", data_dir=nowhere, cache_dir=nowhere)
Trainer._train_step = ask
"""

SCORES = ("test_accuracy", "test_top5", "test_ece", "test_nll", "num_test_images")


class Evaluation:
    """An evaluation of a test, as the storage shows it."""

    def __init__(self, url: str, stored: StoredStudy) -> None:
        self.url = url
        self.stored = stored
        self.name = stored.spec.name

    @property
    def trials(self) -> list[Any]:
        return self.stored.storage.get_all_trials(self.stored.study_id)

    def kinds(self) -> list[str]:
        """List the kinds of all that happened to its trials."""
        stories = (
            events.story(self.stored.engine, self.stored.study_id, trial._trial_id)
            for trial in self.trials
        )
        return [event.kind for story in stories for event in story]

    def outcome(self) -> list[Any]:
        """What must not depend on how often a worker died."""
        return [
            (
                trial.state.name,
                trial.value,
                trial.intermediate_values,
                [trial.user_attrs.get(name) for name in SCORES],
                trial.user_attrs.get("data_fingerprint"),
                trial.user_attrs.get("losses"),
                trial.user_attrs.get("images"),
                trial.system_attrs.get("skdtune:profile"),
            )
            for trial in self.trials
        ]


@pytest.fixture
def make_evaluation(
    make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> Iterator[Callable[..., Evaluation]]:
    """Search two trials and queue the evaluation of both, with two seeds each."""
    opened: list[StoredStudy] = []

    def make(url: str, **settings: Any) -> Evaluation:
        search = make_search(url, f"budget.epochs={EPOCHS}", preset="digits-drg-dsr", num_trials=2)
        searched = start_worker(search)
        assert searched.wait() == 0, searched.err
        settings = {"top": 2, "num_seeds": 2, **settings}
        name = create_evaluation(search.name, storage=url, **settings)
        opened.append(load_study(name, storage=url))
        return Evaluation(url, opened[-1])

    yield make
    for stored in opened:
        stored.close()


def shared(folder: Path) -> dict[str, str]:
    return {"SKDTUNE_CHECKPOINTS": str(folder / "kept"), "SKDTUNE_LEASE_SECONDS": "1"}


def test_an_evaluation_that_was_killed_is_bit_equal_to_one_that_was_not(
    any_url: str,
    make_evaluation: Callable[..., Evaluation],
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    there = make_evaluation(any_url)
    killers = [
        DIE_IN_EPOCH.format(epoch=2),
        DIE_IN_EPOCH.format(epoch=0),
        DIE_BEFORE_THE_TEST,
        DIE_AFTER_THE_TEST,
    ]
    for code in killers:
        victim = start_worker(there, code=code, env=shared(tmp_path))
        assert victim.wait() == -signal.SIGKILL
    last = start_worker(there, env=shared(tmp_path))
    assert last.wait() == 0, last.err
    kinds = there.kinds()
    assert kinds.count("lost") == len(killers)
    assert kinds.count("resumed") == 3, "all but the one that had not finished an epoch"

    name = create_evaluation("tiny", top=2, num_seeds=2, name="again", storage=any_url)
    with contextlib.closing(load_study(name, storage=any_url)) as stored:
        undisturbed = Evaluation(any_url, stored)
        assert start_worker(undisturbed).wait() == 0
        assert there.outcome() == undisturbed.outcome()
    for state, value, curve, scores, _, _, images, profile in there.outcome():
        assert state == "COMPLETE"
        assert value == scores[0]
        assert all(0 <= share <= 1 for share in scores[:3])
        assert len(curve) == EPOCHS
        assert images > 0
        assert set(profile) == {"last"}
    found = evaluated("tiny", storage=any_url)
    assert [len(study.seeds) for study in found] == [2, 2]
    assert [s.seed for s in found[0].seeds] == [s.seed for s in found[1].seeds]
    assert {study.data_fingerprint for study in found} == {there.outcome()[0][4]}
    assert found[0].num_search_trials == 2


def test_the_test_images_are_read_after_the_last_epoch_and_not_before(
    sqlite_url: str, make_evaluation: Callable[..., Evaluation], start_worker: StartWorker
) -> None:
    there = make_evaluation(sqlite_url, top=1, num_seeds=1)
    worker = start_worker(there, code=WATCH_THE_WALL)
    assert worker.wait() == 0, worker.err
    lines = worker.out.split("\n")
    trains = [f"trains {epoch}" for epoch in range(EPOCHS)]
    # First the worker looks whether everything is there, and counts identical images.
    prepares = ["loads train", "loads test"] * 2
    assert lines[:-1] == [*prepares, *trains, "loads test"]


def test_both_parts_together_are_learned_from(
    sqlite_url: str, make_evaluation: Callable[..., Evaluation], start_worker: StartWorker
) -> None:
    there = make_evaluation(sqlite_url, top=1, num_seeds=1)
    assert start_worker(there).wait() == 0
    (trial,) = there.trials
    # 20 images of each class in batches of 32, and none of them is left for a validation.
    assert trial.user_attrs["images"] == 200 // 32 * 32 * EPOCHS
    assert "num_val_images" not in trial.user_attrs
    assert trial.user_attrs["num_test_images"] == 450
    assert trial.user_attrs["evaluated_trial"] in (0, 1)
    assert trial.user_attrs["seed_index"] == 0


def test_a_search_that_asks_for_the_test_images_fails_and_has_not_seen_them(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    worker = start_worker(search, code=ASK_FOR_THE_TEST)
    assert worker.wait() == 0
    (trial,) = search.trials
    assert trial.state.name == "FAIL"
    assert trial.user_attrs["failure_kind"] == "error"
    assert trial.user_attrs["failure_reason"].startswith("TestSplitClosedError: the test images")
    assert not list(tmp_path.glob("**/cache/digits-test-*"))


def test_a_seed_that_fails_is_said_and_in_no_mean(
    sqlite_url: str, make_evaluation: Callable[..., Evaluation], start_worker: StartWorker
) -> None:
    there = make_evaluation(sqlite_url, top=1, num_seeds=3)
    code = f"""
from skdtune.training.trainer import Trainer
score = Trainer.score
def fail(trainer, images):
    if trainer.config.seed == {there.stored.spec.trial_config({}, 1).seed}:
        raise ValueError("a broken cable")
    return score(trainer, images)
Trainer.score = fail
"""
    assert start_worker(there, code=code).wait() == 0
    results = evaluation_results("tiny", storage=sqlite_url)
    (candidate,) = results.candidates
    assert [seed.seed_index for seed in candidate.seeds] == [0, 2]
    (failed,) = results.failed
    assert (failed.seed_index, failed.state) == (1, "failed")
    assert "a broken cable" in failed.reason
    assert results.finished


def test_the_command_trains_what_is_missing_and_prints_it(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, start: Any
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    assert start_worker(search).wait() == 0
    command = ("evaluate", search.name, "--storage", sqlite_url, "--workers", "1")
    first = start(*command, "--seeds", "2", "--json")
    assert first.wait() == 0, first.err
    found = json.loads(first.out)
    (candidate,) = found["candidates"]
    assert [seed["seed_index"] for seed in candidate["seeds"]] == [0, 1]
    accuracies = [seed["accuracy"] for seed in candidate["seeds"]]
    assert candidate["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 2)
    assert candidate["accuracy"]["n"] == 2
    assert candidate["versions"]["torch"]
    more = start(*command, "--seeds", "3", "--json")
    assert more.wait() == 0, more.err
    again = json.loads(more.out)["candidates"][0]["seeds"]
    assert again[:2] == candidate["seeds"], "what is there is not trained again"
    assert len(again) == 3
    printed = start(*command, "--json")
    assert printed.wait() == 0
    assert json.loads(printed.out) == json.loads(more.out)
    assert printed.err == "", "there was nothing to train"


def test_a_test_folder_that_is_missing_is_said_before_a_training(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "tree" / "train" / name
        folder.mkdir(parents=True)
        for row in range(20):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{row}.png")
    search = make_search(
        sqlite_url,
        "data.max_per_class=null",
        f"data.root={tmp_path}/tree",
        "data.image_size=8",
        "data.batch_size=8",
        preset="imagefolder-drg",
        num_trials=1,
    )
    assert start_worker(search).wait() == 0
    assert search.states == ["COMPLETE"], "a search has no use for a test folder"
    name = create_evaluation("tiny", num_seeds=1, storage=sqlite_url)
    with contextlib.closing(load_study(name, storage=sqlite_url)) as stored:
        there = Evaluation(sqlite_url, stored)
        worker = start_worker(there)
        assert worker.wait() == 2
        assert f"{tmp_path / 'tree' / 'test'} does not exist" in worker.err
        assert [trial.state.name for trial in there.trials] == ["WAITING"]
