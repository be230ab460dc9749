from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skdtune.catalogues.datasets import DATASETS
from skdtune.data import wall
from skdtune.data.data_set import ArrayDataSet, DecodedPart, PartRequest
from skdtune.data.images import Split
from skdtune.data.loading import load_part
from skdtune.data.source import FoundSource, find_source, first_changed_file, remember_files
from skdtune.describe.data_config import DataConfig
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError, TestSplitClosedError

MakeTree = Callable[..., Path]
NeverOpened = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture
def find(tmp_path: Path) -> Callable[..., FoundSource]:
    def find(root: Path, split: Split = "train", cache: str = "cache", **more: Any) -> FoundSource:
        values = {"name": "imagefolder", "root": str(root), **more}
        folders = {"data_dir": tmp_path / "nowhere", "cache_dir": tmp_path / cache}
        return find_source(DataConfig.model_validate(values), split, **folders)

    return find


Find = Callable[..., FoundSource]


def test_settings_places_and_times_make_no_difference(
    make_tree: MakeTree, find: Find, tmp_path: Path
) -> None:
    root = make_tree()
    plain = find(root, image_size=8)
    assert plain.source.folder == str(root / "train")
    assert [one.name for one in plain.source.classes] == ["cat", "dog"]
    assert [one.num_images for one in plain.source.classes] == [4, 4]
    assert find(root, image_size=9, val_fraction=0.5, split_seed=3).source == plain.source
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    os.utime(tmp_path / "copy" / "train" / "cat" / "000.png", (0, 0))
    elsewhere = find(tmp_path / "copy", cache="other cache").source
    assert elsewhere == plain.source
    assert elsewhere.digest == plain.source.digest


def permute(train: Path) -> None:
    """Put each class's images into the other's folder; sizes, times and names stay."""
    (train / "cat").rename(train / "aside")
    (train / "dog").rename(train / "cat")
    (train / "aside").rename(train / "dog")


CHANGES: dict[str, tuple[Callable[[Path], object], str, str | None]] = {
    "labels permuted": (permute, "cat", "cat/000.png was changed"),
    "an image replaced": (
        lambda train: shutil.copy(train / "cat" / "000.png", train / "dog" / "002.jpeg"),
        "dog",
        "dog/002.jpeg was changed",
    ),
    "an image added": (
        lambda train: shutil.copy(train / "cat" / "000.png", train / "dog" / "zzz.png"),
        "dog",
        "dog/zzz.png is new",
    ),
    "an image removed": (lambda train: (train / "cat" / "001.JPG").unlink(), "cat", "is gone"),
    "an image moved": (
        lambda train: (train / "cat" / "003.png").rename(train / "dog" / "004.png"),
        "cat",
        "cat/003.png is gone",
    ),
    # The split follows from the order of the names: another image would be validated on.
    "images in another order": (
        lambda train: (train / "cat" / "000.png").rename(train / "cat" / "zzz.png"),
        "cat",
        "cat/000.png is gone",
    ),
    "a class renamed": (lambda train: (train / "dog").rename(train / "wolf"), "dog", None),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_learned_from_makes_a_difference(
    what: str, make_tree: MakeTree, find: Find, tmp_path: Path
) -> None:
    change, name, file = CHANGES[what]
    root = make_tree()
    before = find(root)
    remember_files(before, tmp_path / "cache")
    change(root / "train")
    after = find(root)
    assert after.source.digest != before.source.digest
    assert before.source.first_difference(after.source)[0] == name
    told = first_changed_file(before.source, after, tmp_path / "cache")
    assert (file or "is gone") in (told or "")
    assert first_changed_file(before.source, after, tmp_path / "elsewhere") is None


def test_a_limit_reads_what_it_keeps_and_counts_all(
    make_tree: MakeTree, find: Find, never_opened: NeverOpened, tmp_path: Path
) -> None:
    root = make_tree(train=12)
    limited = find(root, max_per_class=3, split_seed=1)
    kept = {path for files in limited.files.values() for path, digest in files.items() if digest}
    assert len(kept) == 6
    left = [path for files in limited.files.values() for path in files if path not in kept]
    with contextlib.ExitStack() as refused:
        for path in left:
            refused.enter_context(never_opened(root / "train" / path))
        again = find(root, cache="cold", max_per_class=3, split_seed=1)
    assert again.source == limited.source
    assert [one.num_images for one in again.source.classes] == [12, 12]
    # One that would not have been kept is missed all the same, because it shifts what is.
    remember_files(limited, tmp_path / "cache")
    gone = next(path for path in left if path.startswith("cat"))
    (root / "train" / gone).unlink()
    changed = find(root, max_per_class=3, split_seed=1)
    assert limited.source.first_difference(changed.source)[1] == (
        "class 'cat' has 11 of them, not 12"
    )
    assert first_changed_file(limited.source, changed, tmp_path / "cache") == f"{gone} is gone"


def test_a_warm_start_reads_no_image(
    make_tree: MakeTree, find: Find, never_opened: NeverOpened
) -> None:
    root = make_tree()
    cold = find(root)
    with contextlib.ExitStack() as refused:
        for path in (root / "train").glob("*/*"):
            refused.enter_context(never_opened(path))
        assert find(root).source == cold.source


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"cat/000.png": 3, "dog/000.png": [1]}'])
def test_a_damaged_manifest_is_made_anew(
    content: str, make_tree: MakeTree, find: Find, tmp_path: Path
) -> None:
    root = make_tree()
    cold = find(root)
    (manifest,) = (tmp_path / "cache").glob("files-*.json")
    manifest.write_text(content)
    killed = manifest.with_name(f".{manifest.name}.0123.tmp")
    killed.write_text('{"cat/000.png": [1')
    assert find(root).source == cold.source
    assert len(json.loads(manifest.read_text())) == 8
    assert not killed.exists()


def test_a_cache_that_cannot_be_written_is_done_without(
    make_tree: MakeTree, find: Find, tmp_path: Path
) -> None:
    root = make_tree()
    (tmp_path / "no folder").write_text("")
    found = find(root, cache="no folder")
    remember_files(found, tmp_path / "no folder")
    assert found.source == find(root).source


def test_a_change_that_keeps_size_and_time_is_not_overlooked(
    make_tree: MakeTree, find: Find, tmp_path: Path
) -> None:
    root = make_tree()
    path = root / "train" / "cat" / "000.png"
    before, times = find(root), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=times)
    for _ in range(2):
        # Images that were decoded before would be taken for those that are there now.
        with pytest.raises(DataError, match=r"000.png has another content .*: touch it, so that"):
            find(root)
    path.touch()
    assert find(root).source != before.source


def test_a_file_that_cannot_be_read_is_named(make_tree: MakeTree, find: Find) -> None:
    path = make_tree() / "train" / "cat" / "001.JPG"
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(DataError, match=r"001.JPG is a link to nowhere"):
        find(path.parents[2])


def test_the_test_part_is_behind_the_wall(
    make_tree: MakeTree, find: Find, never_opened: NeverOpened
) -> None:
    root = make_tree(test=2)
    with never_opened(root), pytest.raises(TestSplitClosedError):
        find(root, "test")
    with wall.test_split_open(), never_opened(root / "train" / "cat"):
        assert [one.num_images for one in find(root, "test", max_per_class=2).source.classes] == [
            2,
            2,
        ]


class Given(ArrayDataSet):
    """Gives the labels that a test wants it to."""

    def decode(self, request: PartRequest) -> DecodedPart:
        images_NHWC = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
        return DecodedPart(
            images_NHWC=images_NHWC, labels_N=np.array(labels), class_names=("cat", "dog")
        )

    def version(self, request: PartRequest) -> str:
        return str(labels)


labels = [0, 0, 0, 1, 1, 1]


def test_arrays_are_known_by_their_pixels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(DATASETS, "built_in", {"given": Given(about=DataFacts(title="given"))})
    config = DataConfig.model_construct(name="given", max_per_class=2)
    folders = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
    plain = find_source(config, "train", **folders).source
    # All of them, whatever is kept: they were decoded anyway.
    assert [one.num_images for one in plain.classes] == [3, 3]
    monkeypatch.setitem(globals(), "labels", [1, 1, 1, 0, 0, 0])
    permuted = find_source(config, "train", **folders).source
    assert plain.first_difference(permuted) == ("cat", "the images of class 'cat' are other ones")
    monkeypatch.setitem(globals(), "labels", [0, 0, 1, 1, 1, 1])
    moved = find_source(config, "train", **folders).source
    assert plain.first_difference(moved) == ("cat", "class 'cat' has 2 of them, not 3")
    # What is kept of them is read again, and made anew where it is damaged.
    images = load_part(config.model_copy(update={"max_per_class": None}), "train", **folders)
    kept = tmp_path / "cache" / f"pixels-{images.fingerprint}.json"
    assert json.loads(kept.read_text()) == moved.to_plain()
    kept.write_text(json.dumps(moved.to_plain() | {"digest": "0"}))
    assert find_source(config, "train", **folders).source == moved
    assert json.loads(kept.read_text()) == moved.to_plain()
