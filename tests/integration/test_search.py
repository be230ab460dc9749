"""Real searches: worker processes that know the storage and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from skdtune.describe.identity import derive_seed

MakeSearch = Callable[..., Any]
StartWorker = Callable[..., Any]

ATTRIBUTES = {
    "device",
    "precision",
    "kernels",
    "threads",
    "seed",
    "spec_hash",
    "data_fingerprint",
    "num_val_images",
    "versions",
    "epoch_seconds",
    "val_loss",
    "losses",
}


def test_workers_run_exactly_the_trials_that_were_asked_for(
    any_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(any_url, preset="digits-drg-dsr", num_trials=7)
    workers = [start_worker(search) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]

    assert search.states == ["COMPLETE"] * 7
    log = "".join(worker.err for worker in workers)
    started = re.findall(r"trial (\d+) starts on cpu$", log, re.MULTILINE)
    assert sorted(map(int, started)) == list(range(7))
    finished = [int(n) for n in re.findall(r"^(\d+) trials finished by this worker", log, re.M)]
    assert sum(finished) == 7
    assert search.holders == []

    for trial in search.trials:
        curve = trial.intermediate_values
        assert list(curve) == [0, 1]
        assert trial.value == curve[1]
        assert trial.user_attrs.keys() >= ATTRIBUTES
        assert trial.user_attrs["device"].startswith("cpu (")
        assert trial.user_attrs["precision"] == "float32"
        assert trial.user_attrs["seed"] == derive_seed(0, "trial", trial.number)
        assert trial.user_attrs["spec_hash"] == search.stored.spec.digest
        assert trial.user_attrs["num_val_images"] == 50
        assert set(trial.user_attrs["versions"]) == {"skdtune", "optuna", "python", "torch"}
        assert len(trial.system_attrs["skdtune:curves"]["epoch_seconds"]) == 2
        assert trial.user_attrs["epoch_seconds"] > 0
        assert set(trial.user_attrs["losses"]) == {"cross_entropy", "drg", "aux_ce", "dsr"}
        config = search.stored.spec.trial_config(trial.params, trial.number)
        assert config.seed == trial.user_attrs["seed"]
    assert len({trial.user_attrs["data_fingerprint"] for trial in search.trials}) == 1
    assert search.trials[0].params == search.stored.spec.base_params()
    assert len({str(trial.params) for trial in search.trials}) == 7


def test_a_worker_writes_nothing_outside_of_its_home(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    # An empty name is none: this worker builds the C part itself, as a person's first one does.
    worker = start_worker(make_search(sqlite_url, num_trials=1), env={"SKDTUNE_NATIVE": ""})
    assert worker.wait() == 0
    assert not list((worker.folder / "cwd").iterdir())
    home = worker.folder / "home"
    assert (home / "cache" / "native").is_dir()
    assert sorted(path.name for path in home.iterdir()) == ["artifacts", "cache", "checkpoints"]
    assert not list((home / "checkpoints").iterdir()), "checkpoints end with their trial"


def test_the_same_study_gives_the_same_numbers_on_any_storage(
    sqlite_url: str, postgres_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    searches = [make_search(url, num_trials=2) for url in (sqlite_url, postgres_url)]
    for search in searches:
        assert start_worker(search).wait() == 0
    first, second = (
        [(t.params, t.intermediate_values, t.value) for t in search.trials] for search in searches
    )
    assert first == second


def test_a_worker_leaves_after_so_many_trials(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url)
    assert start_worker(search, "--max-trials", "2").wait() == 0
    assert search.states == ["COMPLETE", "COMPLETE", "WAITING"]


def test_a_worker_waits_for_the_trials_of_others_unless_it_drains(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, "budget.epochs=5000", num_trials=1)
    holder = start_worker(search)
    search.wait_for_epochs(0)
    assert start_worker(search, "--drain").wait() == 0
    patient = start_worker(search)
    optuna.load_study(study_name="tiny", storage=sqlite_url).tell(0, state=TrialState.FAIL)
    assert patient.wait() == 0
    assert holder.wait() == 0


def test_weak_trials_are_pruned_at_rungs_unless_a_person_queued_them(
    sqlite_url: str,
    make_search: MakeSearch,
    start_worker: StartWorker,
    start: Callable[..., Any],
) -> None:
    search = make_search(
        sqlite_url,
        # A person's own is the worst of them, and runs to its end.
        "enqueue=[{optimizer.lr: 1.0e-9}]",
        "search.optimizer.lr.low=1e-9",
        "search.optimizer.lr.high=0.05",
        "search.optimizer.weight_decay=null",
        "data.flip=false",
        "data.crop=none",
        "data.max_per_class=40",
        "data.batch_size=16",
        "model.width=8",
        "optimizer.schedule=cosine",
        "optimizer.lr=0.05",
        "budget.epochs=9",
        "pruner={name: asha, min_epochs: 2, reduction_factor: 2}",
        num_trials=8,
    )
    (rungs,) = search.stored.spec.effective_pruner.brackets(9)
    assert rungs == (2, 4, 8)
    assert start_worker(search).wait() == 0
    trials = search.trials
    for queued in trials[:2]:
        assert queued.state is TrialState.COMPLETE
        assert len(queued.intermediate_values) == 9
    told = start("explain", "tiny", "1", "--storage", sqlite_url)
    assert told.wait() == 0
    assert re.search(r"would have been pruned after epoch 2 with \d+\.\d\d%", told.out), told.out
    assert "is never pruned: it was queued by hand" in told.out
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    assert len(pruned) >= 3
    assert trials[0].value > max(trial.value or 0 for trial in pruned)
    for trial in pruned:
        assert len(trial.intermediate_values) in rungs
        curves = trial.system_attrs["skdtune:curves"]
        assert len(curves["epoch_seconds"]) == len(trial.intermediate_values)
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]


REFUSE_THE_TEST_SPLIT = """
import sys
from skdtune.data import catalogue
load_part = catalogue.load_part
def search_only(config, split, **folders):
    assert split == "train", "the search opened the test images"
    return load_part(config, split, **folders)
catalogue.load_part = search_only
def refuse(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and "/tree/test" in str(arguments[0]):
        raise AssertionError(f"the search opened {arguments[0]}")
sys.addaudithook(refuse)
"""


def test_a_search_on_digits_never_asks_for_the_test_images(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker
) -> None:
    search = make_search(sqlite_url, num_trials=1)
    worker = start_worker(search, code=REFUSE_THE_TEST_SPLIT)
    assert (worker.wait(), search.states) == (0, ["COMPLETE"]), worker.err


def test_a_search_on_an_image_folder_never_opens_the_test_folder(
    sqlite_url: str, make_search: MakeSearch, start_worker: StartWorker, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "tree" / "train" / name
        folder.mkdir(parents=True)
        for row in range(20):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{row}.png")
        broken = tmp_path / "tree" / "test" / name
        broken.mkdir(parents=True)
        (broken / "0.png").write_bytes(b"this is no image")
    search = make_search(
        sqlite_url,
        "data.max_per_class=null",
        f"data.root={tmp_path}/tree",
        "data.image_size=8",
        "data.batch_size=8",
        preset="imagefolder-drg",
        num_trials=1,
    )
    worker = start_worker(search, code=REFUSE_THE_TEST_SPLIT)
    assert (worker.wait(), search.states) == (0, ["COMPLETE"]), worker.err


@pytest.mark.parametrize("part", ["digits", "folder"])
def test_the_guard_of_the_two_tests_above_would_have_noticed(
    part: str, start: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "tree" / "test").mkdir(parents=True)
    opens = {
        "digits": (
            "from skdtune.data.wall import test_split_open\n"
            "with test_split_open():\n"
            "    catalogue.load_test_images(None.__class__, data_dir=None, cache_dir=None)"
        ),
        "folder": f"import os; os.listdir({str(tmp_path / 'tree' / 'test')!r})",
    }[part]
    opens = opens.replace("None.__class__", "__import__('types').SimpleNamespace(name='digits')")
    process = start(code=REFUSE_THE_TEST_SPLIT + opens)
    assert process.wait() == 1
    assert "the search opened" in process.err
