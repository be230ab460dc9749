"""What is said and refused before a trial is taken, by whoever prepares the data of a study."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from data_makers import imagefolder

from skdtune.data.store import DataStore
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec
from skdtune.errors import SpecError
from skdtune.signals import SUPERVISED_VARIABLE
from skdtune.worker.preparation import prepare_study


@pytest.fixture
def store(tmp_path: Path) -> DataStore:
    return DataStore(tmp_path / "data", tmp_path / "cache", torch.device("cpu"))


def study(tmp_path: Path, method: str = "baseline", batch_size: int = 4) -> StudySpec:
    tree = [f"data.root={tmp_path / 'tree'}", "data.image_size=8", f"data.batch_size={batch_size}"]
    return load_spec(f"imagefolder-{method}", overrides=tree)


def test_what_a_person_should_know_of_the_data_is_said_once(
    store: DataStore,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imagefolder.make(tmp_path / "tree", train=6, test=0)
    cats = tmp_path / "tree" / "train" / "cat"
    shutil.copy(cats / "000.png", cats / "003.png")
    spec = study(tmp_path)
    monkeypatch.setenv(SUPERVISED_VARIABLE, "1")
    with caplog.at_level(logging.INFO):
        prepare_study(store, spec)
    # Whoever started this worker has said it, and it took no time to count.
    assert caplog.messages == []
    assert not list((tmp_path / "cache").glob("duplicates-*"))
    monkeypatch.delenv(SUPERVISED_VARIABLE)
    prepare_study(store, spec)
    test = tmp_path / "tree" / "test"
    without_test, identical = caplog.messages
    assert without_test == (
        f"imagefolder has no test images here (there is no folder {test}): a search needs none, "
        "`skdtune evaluate` does"
    )
    assert identical.startswith("imagefolder: 1 group of identical images among 12")


def test_too_few_images_for_the_method_cost_no_trial(store: DataStore, tmp_path: Path) -> None:
    imagefolder.make(tmp_path / "tree", train=5, test=1)
    # Of five images one is kept for validation.
    prepare_study(store, study(tmp_path, "dsr", batch_size=4))
    with pytest.raises(
        SpecError, match=r"and 8 training images make no second batch of 5: take a"
    ):
        prepare_study(store, study(tmp_path, "dsr", batch_size=5))
