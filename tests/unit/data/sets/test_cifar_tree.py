"""CIFAR as a tree of image files, beside the published files with the same images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers import cifar10
from PIL import Image

from skdtune.data import wall
from skdtune.data.catalogue import load_search_data, load_test_images, load_training_images
from skdtune.data.images import ImageSet
from skdtune.data.look import look_for_test
from skdtune.data.source import find_source
from skdtune.describe.config import DataConfig
from skdtune.describe.data_source import refusal
from skdtune.errors import DataError

NeverOpened = Callable[[Path], AbstractContextManager[None]]


class Layouts:
    """The same random images in both layouts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = cifar10.make(folder / "published", monkeypatch)
        self.folders: dict[str, Any] = {"data_dir": folder, "cache_dir": folder / "cache"}
        self.published = DataConfig(name="cifar10", **made.settings)
        self.root = folder / "tree"
        self.tree = DataConfig(name="cifar10", root=str(self.root), download=False)
        for split in ("train", "test"):
            images = self.load(self.published, split)
            # Names that stand in another order than the rows.
            for row, (pixels, label) in enumerate(
                zip(images.images_NCHW, images.labels_N, strict=True)
            ):
                path = self.root / split / images.class_names[label] / f"{997 - row:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.transpose(1, 2, 0)).save(path)

    def load(self, config: DataConfig, split: str) -> ImageSet:
        if split == "train":
            return load_training_images(config, **self.folders)
        with wall.test_split_open():
            return load_test_images(config, **self.folders)


@pytest.fixture
def layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layouts:
    return Layouts(tmp_path, monkeypatch)


def test_a_tree_holds_the_same_images_with_the_same_labels(layouts: Layouts) -> None:
    for split in ("train", "test"):
        one, other = layouts.load(layouts.published, split), layouts.load(layouts.tree, split)
        assert one.class_names == other.class_names
        bags = [
            sorted((int(label), pixels.tobytes()) for pixels, label in zip(*arrays, strict=True))
            for arrays in ((s.images_NCHW, s.labels_N) for s in (one, other))
        ]
        assert bags[0] == bags[1]
        assert one.fingerprint != other.fingerprint


def test_its_content_is_that_of_the_published_files_and_its_order_is_not(layouts: Layouts) -> None:
    published, tree = (
        find_source(config, "train", **layouts.folders).source
        for config in (layouts.published, layouts.tree)
    )
    assert published.content
    assert published.content == tree.content
    assert published != tree
    line = refusal("mine", "train", published, tree)
    assert "they are the same images in another layout" in line
    assert str(layouts.root) in line
    # Read again from the cache, it is still known.
    assert find_source(layouts.tree, "train", **layouts.folders).source.content == tree.content


def test_a_changed_image_is_another_content(layouts: Layouts) -> None:
    before = find_source(layouts.tree, "train", **layouts.folders).source
    path = next((layouts.root / "train").rglob("*.png"))
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(path)
    after = find_source(layouts.tree, "train", **layouts.folders).source
    assert after.content != before.content
    assert "are other ones" in refusal("mine", "train", before, after)


def test_a_search_opens_no_test_image(layouts: Layouts, never_opened: NeverOpened) -> None:
    with never_opened(layouts.root / "test"):
        load_search_data(layouts.tree, **layouts.folders)


def test_what_is_missing_is_one_line(layouts: Layouts) -> None:
    (layouts.root / "test").rename(layouts.root / "elsewhere")
    assert f"there is no folder {layouts.root / 'test'}" in look_for_test(
        layouts.tree, data_dir=layouts.folders["data_dir"]
    )
    with pytest.raises(DataError, match="there is no folder"):
        layouts.load(layouts.tree, "test")
    for path in (layouts.root / "train" / "name3").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"name3 holds 0 images .* needs at least 2"):
        layouts.load(layouts.tree, "train")
