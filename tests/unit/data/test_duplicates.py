"""Identical images: how many are counted, when, and in which words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skdtune.data import duplicates, wall
from skdtune.data.catalogue import load_training_images
from skdtune.data.duplicates import Duplicates, count_duplicates
from skdtune.data.splits import stratified_split
from skdtune.describe.config import DataConfig
from skdtune.errors import TestSplitClosedError

Count = Callable[..., Duplicates]


@pytest.fixture
def tree(make_tree: Callable[..., Path]) -> Path:
    return make_tree(train=8, test=3)


@pytest.fixture
def count(tree: Path, tmp_path: Path) -> Count:
    def count(is_tested: bool = False, **values: Any) -> Duplicates:
        config = config_of(tree, **values)
        folders = {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache"}
        return count_duplicates(config, is_tested=is_tested, **folders)

    return count


def config_of(tree: Path, **values: Any) -> DataConfig:
    settings = {"name": "imagefolder", "root": str(tree), "image_size": 8, "val_fraction": 0.25}
    return DataConfig.model_validate({**settings, **values})


def test_images_that_all_differ_are_not_worth_a_word(count: Count) -> None:
    found = count()
    assert (found.num_images, found.num_groups, found.num_judged) == (16, 0, 4)
    assert found.describe("mine") == ""


def test_groups_labels_and_what_is_judged_on_are_counted(
    count: Count, tree: Path, tmp_path: Path
) -> None:
    full = load_training_images(config_of(tree), data_dir=tmp_path, cache_dir=tmp_path / "cache")
    train_N, val_N = stratified_split(full.labels_N, 0.25, 0)
    files = [f"{name}/{path.name}" for name in ("cat", "dog") for path in files_of(tree, name)]
    learned = [files[row] for row in train_N]
    judged = [files[row] for row in val_N]
    # One group within the learned, a group of four on both sides, and one of two classes.
    copy(tree, learned[0], learned[1])
    for path in (learned[3], judged[0], judged[1]):
        copy(tree, learned[2], path)
    copy(tree, learned[-1], learned[4])
    found = count()
    assert found == Duplicates(
        judged_on="validation",
        num_images=16,
        num_groups=3,
        num_leaked=2,
        num_judged=4,
        num_of_two_classes=1,
        classes=("cat", "dog"),
    )
    assert found.describe("mine") == (
        "mine: 3 groups of identical images among 16; 2 of 4 validation images are learned from "
        "too; 1 with different labels (first: 'cat' and 'dog')"
    )
    # Another split judges on other images.
    assert len({count(split_seed=seed).num_leaked for seed in range(6)}) > 1


def files_of(tree: Path, name: str) -> list[Path]:
    return sorted((tree / "train" / name).iterdir())


def copy(tree: Path, one: str, to: str) -> None:
    """Put the content of an image in the place of another one, whatever it is called."""
    shutil.copy(tree / "train" / one, tree / "train" / to)


def test_a_final_evaluation_compares_with_the_test_images(count: Count, tree: Path) -> None:
    for path, twin in (("cat/000.png", "cat/000.png"), ("dog/000.png", "dog/001.JPG")):
        shutil.copy(tree / "train" / path, tree / "test" / twin)
    assert count().num_groups == 0
    with pytest.raises(TestSplitClosedError):
        count(is_tested=True)
    with wall.test_split_open():
        said = count(is_tested=True).describe("mine")
    assert said == (
        "mine: 2 groups of identical images among 22; 2 of 6 test images are learned from too"
    )
    # What is kept is behind the wall, too.
    with pytest.raises(TestSplitClosedError):
        count(is_tested=True)


def test_it_is_counted_once(count: Count, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = count()
    (kept,) = (tmp_path / "cache").glob("duplicates-*.json")
    with monkeypatch.context() as patched:
        patched.delattr(duplicates, "image_digests")
        assert count() == first
    # A damaged note is counted again, and a cache that cannot be written is no reason to fail.
    kept.write_text(kept.read_text()[:20])
    assert count() == first
    assert count() == first
    kept.unlink()
    kept.mkdir()
    assert count() == first


def test_the_digest_of_an_image_is_that_of_its_pixels(make_images: Callable[..., Any]) -> None:
    images = make_images(num_images=6)
    pixels_NHWC = images.images_NCHW.transpose(0, 2, 3, 1)
    digests_N = duplicates.image_digests(images)
    again_N = duplicates.image_digests(images.take(np.array([5, 0])))
    assert [digests_N[5], digests_N[0]] == list(again_N)
    assert len(set(digests_N.tolist())) == 6
    pixels_NHWC[1, 7, 7, 2] ^= 1
    assert (duplicates.image_digests(images) != digests_N).tolist() == [False, True, *[False] * 4]
