from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from skdtune.data import decoding, many_files, wall
from skdtune.data.images import ImageSet, Split
from skdtune.data.loading import load_part, require_parts_apart
from skdtune.data.sets.image_folder import SUFFIXES
from skdtune.describe.config import DataConfig
from skdtune.errors import DataError, TestSplitClosedError

MakeTree = Callable[..., Path]


def load(root: Path | str, tmp_path: Path, split: Split = "train", **values: Any) -> ImageSet:
    settings = DataConfig(**{"name": "imagefolder", "root": str(root), "image_size": 8, **values})
    with wall.test_split_open():
        folders = {"data_dir": tmp_path / "nowhere", "cache_dir": tmp_path / "cache"}
        return load_part(settings, split, **folders)


def message(root: Path, tmp_path: Path, split: Split = "train") -> str:
    with pytest.raises(DataError) as caught:
        load(root, tmp_path, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_names_of_image_files_are_those_torchvision_knows() -> None:
    assert SUFFIXES == IMG_EXTENSIONS


def test_classes_and_images_are_sorted(make_tree: MakeTree, tmp_path: Path) -> None:
    images = load(make_tree(classes=("zebra", "ape")), tmp_path)
    assert images.class_names == ("ape", "zebra")
    assert images.labels_N.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert images.image_shape == (3, 8, 8)


def test_other_and_hidden_files_are_passed_over(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / "cat" / "._000.png").write_text("no image")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    deep = root / "train" / "cat" / "more"
    deep.mkdir()
    shutil.copy(root / "train" / "cat" / "000.png", deep / "000.png")
    images = load(root, tmp_path)
    assert images.class_names == ("cat", "dog")
    assert len(images) == 9


def test_only_what_is_kept_is_decoded(
    make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    plain = decoding.decode_file

    def decode(path: Path, image_size: int) -> NDArray[np.uint8]:
        decoded.append(path)
        return plain(path, image_size)

    monkeypatch.setattr(decoding, "decode_file", decode)
    root = make_tree(train=10)
    assert len(load(root, tmp_path, max_per_class=3)) == 6
    assert len(decoded) == 6
    load(root, tmp_path, max_per_class=3)
    assert len(decoded) == 6
    load(root, tmp_path, max_per_class=3, split_seed=1)
    assert len(decoded) == 12
    assert len(load(root, tmp_path, "test", max_per_class=2)) == 4


def test_changed_files_and_sizes_are_decoded_again(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    first = load(root, tmp_path)
    assert load(root, tmp_path, image_size=9).image_shape == (3, 9, 9)
    path = root / "train" / "cat" / "000.png"
    Image.new("RGB", (10, 14)).save(path)
    second = load(root, tmp_path)
    assert not second.images_NCHW[0].any()
    assert second.fingerprint != first.fingerprint


def test_a_copy_has_the_same_fingerprint(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    os.utime(tmp_path / "copy" / "train" / "cat" / "000.png", (0, 0))
    images = [load(root, tmp_path), load(tmp_path / "copy", tmp_path)]
    assert images[0].fingerprint == images[1].fingerprint
    assert len(list((tmp_path / "cache").glob("imagefolder-*"))) == 2


def test_the_training_images_need_no_test_folder(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree(test=0)
    assert len(load(root, tmp_path)) == 8
    text = message(root, tmp_path, "test")
    assert text.startswith(f"{root / 'test'} does not exist")


def test_only_the_part_asked_for_is_opened(
    make_tree: MakeTree,
    tmp_path: Path,
    never_opened: Callable[[Path], AbstractContextManager[None]],
) -> None:
    root = make_tree()
    with never_opened(root / "test"):
        load(root, tmp_path)
    with never_opened(root / "train" / "cat"):
        assert len(load(root, tmp_path, "test")) == 4


def test_the_home_folder_is_understood(
    make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load("~/tree", tmp_path)) == 8


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    text = message(tmp_path / "nowhere", tmp_path)
    assert text.startswith(f"the folder {tmp_path / 'nowhere'} does not exist: set data.root")


def test_class_folders_without_train_show_the_layout(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree() / "train"
    text = message(root, tmp_path)
    assert f"{root} has no folder train (found cat, dog)" in text
    assert f"{root}/train/<class>/<image>" in text


def test_one_class_is_too_few(make_tree: MakeTree, tmp_path: Path) -> None:
    text = message(make_tree(classes=("cat",)), tmp_path)
    assert "has 1 class folders and a classifier needs at least 2" in text


@pytest.mark.parametrize("left", [0, 1])
def test_a_class_without_enough_images_is_named(
    make_tree: MakeTree, tmp_path: Path, left: int
) -> None:
    folder = make_tree() / "train" / "dog"
    for path in sorted(folder.iterdir())[left:]:
        path.unlink()
    text = message(folder.parent.parent, tmp_path)
    assert text.startswith(f"{folder} holds {left} images and needs at least 2")


def test_an_empty_test_class_is_named(make_tree: MakeTree, tmp_path: Path) -> None:
    folder = make_tree() / "test" / "dog"
    for path in folder.iterdir():
        path.unlink()
    text = message(folder.parent.parent, tmp_path, "test")
    assert text.startswith(f"{folder} holds 0 images and needs at least 1")


def test_test_classes_must_be_those_of_train(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    (root / "test" / "dog").rename(root / "test" / "hog")
    assert "dog is only in train" in message(root, tmp_path, "test")
    shutil.rmtree(root / "train" / "dog")
    shutil.copytree(root / "train" / "cat", root / "train" / "bat")
    shutil.copytree(root / "test" / "cat", root / "test" / "ant")
    assert "ant is only in test" in message(root, tmp_path, "test")


def test_a_truncated_image_is_named(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    path = root / "train" / "dog" / "001.JPG"
    path.write_bytes(path.read_bytes()[:300])
    assert message(root, tmp_path).startswith(f"cannot read the image {path} (")
    assert not list((tmp_path / "cache").glob("imagefolder-*"))


def test_a_file_that_is_no_image_is_named(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    path = root / "train" / "dog" / "000.png"
    path.write_text("no image")
    text = message(root, tmp_path)
    assert text.startswith(f"cannot read the image {path} (")
    assert "replace this file" in text


def test_a_dangling_link_is_named(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    path = root / "train" / "dog" / "zzz.png"
    path.symlink_to(tmp_path / "nowhere.png")
    lost = f"{path} is a link to {tmp_path / 'nowhere.png'}, which is not there: mend or remove"
    assert message(root, tmp_path).startswith(lost)
    # It may have led to a folder of images, or to a class.
    path.unlink()
    for path in (root / "train" / "dog" / "more", root / "train" / "hog"):
        path.symlink_to(path)
        assert message(root, tmp_path).startswith(f"{path} is a link to {path}, which is not")
        path.unlink()
    (root / "train" / "dog" / ".tool").symlink_to("nowhere")
    os.mkfifo(root / "train" / "dog" / "pipe.png")
    assert len(load(root, tmp_path)) == 8


def test_a_folder_that_cannot_be_listed_is_named(
    make_tree: MakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree()
    # Longer than any system opens; whoever runs as root may list all else.
    deep = root / "train" / "dog"
    monkeypatch.chdir(deep)
    for _ in range(20):
        os.mkdir("x" * 250)
        os.chdir("x" * 250)
    os.chdir(tmp_path)
    assert message(root, tmp_path).endswith("(File name too long)")
    shutil.rmtree(deep)


def test_an_image_counts_once_however_many_links_lead_to_it(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    root = make_tree()
    plain = load(root, tmp_path)
    cat = root / "train" / "cat"
    (cat / "000").symlink_to(cat)
    (cat / "loop").symlink_to("../cat")
    (cat / "000-again.png").symlink_to("000.png")
    (cat / "more").mkdir()
    (cat / "more" / "up").symlink_to("../more")
    linked = load(root, tmp_path)
    assert linked.fingerprint == plain.fingerprint
    # The same names decide the cache, so that it is not decoded again.
    assert len(list((tmp_path / "cache").glob("imagefolder-train-*"))) == 1


def test_images_may_lie_behind_links(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    plain = load(root, tmp_path)
    (root / "train").rename(tmp_path / "elsewhere")
    for name in ("cat", "dog"):
        (root / "train" / name).mkdir(parents=True)
        (root / "train" / name / "all").symlink_to(tmp_path / "elsewhere" / name)
    assert load(root, tmp_path).fingerprint == plain.fingerprint
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    for name in ("cat", "dog"):
        (root / "train" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert load(root, tmp_path).fingerprint == plain.fingerprint


def test_two_names_on_the_disk_are_two_files_as_two_copies_are(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    cat = make_tree() / "train" / "cat"
    os.link(cat / "000.png", cat / "copy.png")
    assert len(load(cat.parents[1], tmp_path)) == 9
    (cat / "linked.png").symlink_to("copy.png")
    assert len(load(cat.parents[1], tmp_path)) == 9


@pytest.mark.parametrize("link", ["cat/up", "cat/dogs", "hog", "cat/one.png"])
def test_a_file_of_two_classes_is_named_by_both_paths(
    make_tree: MakeTree, tmp_path: Path, link: str
) -> None:
    train = make_tree() / "train"
    leads_to = {
        "cat/up": "..",
        "cat/dogs": "../dog",
        "hog": "dog",
        "cat/one.png": "../dog/000.png",
    }
    (train / link).symlink_to(leads_to[link])
    text = message(train.parent, tmp_path)
    below = {"cat/up": "cat/up/dog/000.png", "cat/one.png": link}.get(link, f"{link}/000.png")
    assert text.startswith(f"{train}/dog/000.png and {train}/{below} are one file, which would be")
    assert text.endswith(": remove the link that is wrong")


def test_a_class_of_links_to_one_image_has_too_few(make_tree: MakeTree, tmp_path: Path) -> None:
    train = make_tree() / "train"
    (train / "hog").mkdir()
    for number in range(3):
        (train / "hog" / f"{number}.png").symlink_to(tmp_path / "hog.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "hog.png")
    text = message(train.parent, tmp_path)
    assert text.startswith(f"class 'hog' in {train} has 1 images and needs at least 2")


def test_a_file_that_is_learned_from_is_not_tested_on(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree()
    config = DataConfig(name="imagefolder", root=str(root), image_size=8)
    with wall.test_split_open():
        require_parts_apart(config, data_dir=tmp_path)
        (root / "test" / "cat" / "easy.png").symlink_to("../../train/cat/000.png")
        with pytest.raises(DataError) as caught:
            require_parts_apart(config, data_dir=tmp_path)
    tested, learned = root / "test" / "cat" / "easy.png", root / "train" / "cat" / "000.png"
    assert str(caught.value).startswith(f"{tested} and {learned} are one file: an accuracy on")
    with pytest.raises(TestSplitClosedError):
        require_parts_apart(config, data_dir=tmp_path)


def test_many_images_are_announced_once(
    make_tree: MakeTree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(many_files, "_MANY_FILES", 8)
    root = make_tree()
    for _ in range(2):
        load(root, tmp_path)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"decoding 8 images of {root / 'train'}, once\n"
