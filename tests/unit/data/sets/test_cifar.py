from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preset_cases import FOLLOWING
from torchvision.datasets import CIFAR10, CIFAR100

from skdtune.data import wall
from skdtune.data.images import ImageSet, Split
from skdtune.data.loading import load_part
from skdtune.data.sets import cifar
from skdtune.describe.config import DataConfig
from skdtune.errors import DataError

MakeCifar = Callable[..., Path]
NOWHERE = "http://127.0.0.1:9/cifar.tar.gz"


def config(**values: Any) -> DataConfig:
    return DataConfig(**{"name": "cifar10", "download": False, **values})


def load(settings: DataConfig, split: Split, root: Path, tmp_path: Path) -> ImageSet:
    """Load a part as a final evaluation may."""
    with wall.test_split_open():
        return load_part(settings, split, data_dir=root, cache_dir=tmp_path / "cache")


def load_train(settings: DataConfig, root: Path, tmp_path: Path) -> ImageSet:
    return load_part(settings, "train", data_dir=root, cache_dir=tmp_path / "cache")


def lies_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = replace(cifar.CIFAR_10.archive, url=url)
    monkeypatch.setattr(cifar, "CIFAR_10", replace(cifar.CIFAR_10, archive=archive))


def message(settings: DataConfig, root: Path, tmp_path: Path, split: Split = "train") -> str:
    with pytest.raises(DataError) as caught:
        load(settings, split, root, tmp_path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(cifar.CIFAR_10, CIFAR10), (cifar.CIFAR_100, CIFAR100)]
)
def test_files_and_checksums_are_those_torchvision_knows(
    ours: cifar.Cifar, theirs: type[CIFAR10]
) -> None:
    archive = ours.archive
    assert (archive.url, archive.filename) == (theirs.url, theirs.filename)
    assert (archive.md5, archive.folder) == (theirs.tgz_md5, theirs.base_folder)
    assert [list(file) for file in ours.files["train"]] == theirs.train_list
    assert [list(file) for file in ours.files["test"]] == theirs.test_list
    assert ours.names == (theirs.meta["filename"], theirs.meta["md5"])


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_those_torchvision_reads(
    make_cifar: MakeCifar,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    split: Split,
) -> None:
    root = make_cifar(name)
    images = load(config(name=name), split, root, tmp_path)
    source = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    monkeypatch.setattr(source, "_check_integrity", lambda self: True)
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": None})
    reference = source(root, train=split == "train")
    np.testing.assert_array_equal(images.images_NCHW, reference.data.transpose(0, 3, 1, 2))
    assert images.labels_N.tolist() == reference.targets
    assert list(images.class_names) == reference.classes


@pytest.mark.parametrize("split", ["train", "test"])
def test_only_the_part_asked_for_is_opened(
    make_cifar: MakeCifar,
    tmp_path: Path,
    split: Split,
    never_opened: Callable[[Path], AbstractContextManager[None]],
) -> None:
    root = make_cifar()
    other = "test_batch" if split == "train" else "data_batch"
    with never_opened(root / CIFAR10.base_folder / other):
        load(config(), split, root, tmp_path)


def test_the_root_of_the_settings_goes_first(
    make_cifar: MakeCifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cifar()
    monkeypatch.setenv("HOME", str(tmp_path))
    nowhere = tmp_path / "nowhere"
    images = load_train(config(root="~/data"), nowhere, tmp_path)
    assert len(images) == 100


def test_a_warm_cache_does_not_need_the_data(make_cifar: MakeCifar, tmp_path: Path) -> None:
    root = make_cifar()
    first = load_train(config(), root, tmp_path)
    shutil.rmtree(root)
    again = load_train(config(), root, tmp_path)
    assert again.fingerprint == first.fingerprint


def test_a_limit_is_for_training_images(make_cifar: MakeCifar, tmp_path: Path) -> None:
    root = make_cifar()
    limited = config(max_per_class=3)
    train = load_train(limited, root, tmp_path)
    assert np.bincount(train.labels_N).tolist() == [3] * 10
    assert len(load(limited, "test", root, tmp_path)) == 20


def test_an_archive_put_there_by_hand_is_unpacked(
    make_cifar: MakeCifar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_cifar(unpacked=False)
    assert len(load_train(config(), root, tmp_path)) == 100
    assert (root / CIFAR10.filename).exists()
    names = {file.name for file in (root / CIFAR10.base_folder).iterdir()}
    assert names == {"batches.meta", "test_batch", *(f"data_batch_{n}" for n in range(1, 6))}
    assert capsys.readouterr() == ("", "")


def test_a_download_is_unpacked_and_leaves_no_archive(
    make_cifar: MakeCifar,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = make_cifar(unpacked=False) / CIFAR10.filename
    lies_at(archive.as_uri(), monkeypatch)
    root = tmp_path / "empty"
    assert len(load_train(config(download=True), root, tmp_path)) == 100
    visible = [path.name for path in root.iterdir() if not path.name.startswith(".")]
    assert visible == [CIFAR10.base_folder]
    assert not (root / CIFAR10.base_folder / CIFAR10.filename).exists()
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"downloading {archive.as_uri()}\n"


def test_missing_data_name_folder_file_and_address(tmp_path: Path) -> None:
    text = message(config(), tmp_path / "data", tmp_path)
    assert str(tmp_path / "data") in text
    assert CIFAR10.base_folder in text
    assert CIFAR10.filename in text
    assert CIFAR10.url in text
    assert "data.download" in text


def test_no_network_says_what_to_do_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies_at(NOWHERE, monkeypatch)
    text = message(config(download=True), tmp_path / "data", tmp_path)
    assert "Connection refused" in text
    assert f"get {NOWHERE}, put it into {tmp_path / 'data'} and run again" in text
    assert [path.suffix for path in (tmp_path / "data").iterdir()] == [".lock"]


def test_a_download_of_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "login.html").write_text("please log in")
    lies_at((tmp_path / "login.html").as_uri(), monkeypatch)
    text = message(config(download=True), tmp_path / "data", tmp_path)
    assert "the download gave another file" in text
    assert not (tmp_path / "data" / CIFAR10.base_folder).exists()


def test_a_damaged_archive_is_named(make_cifar: MakeCifar, tmp_path: Path) -> None:
    archive = make_cifar(unpacked=False) / CIFAR10.filename
    archive.write_bytes(archive.read_bytes()[:-10])
    text = message(config(download=True), archive.parent, tmp_path)
    assert text.startswith(f"{archive} is damaged or incomplete")
    assert "put it into" in text


@pytest.mark.parametrize("file", ["data_batch_3", "batches.meta"])
@pytest.mark.parametrize("download", [True, False])
def test_half_copied_data_name_the_file(
    make_cifar: MakeCifar, tmp_path: Path, file: str, download: bool
) -> None:
    root = make_cifar()
    path = root / CIFAR10.base_folder / file
    path.write_bytes(path.read_bytes()[:-1])
    text = message(config(download=download), root, tmp_path)
    assert text.startswith(f"{path} is damaged or incomplete")
    assert "move the folder" in text
    path.unlink()
    text = message(config(download=download), root, tmp_path)
    assert text.startswith(f"{path} cannot be read (No such file or directory)")


def test_a_strangers_pickle_is_never_run(make_cifar: MakeCifar, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "evil",)

    root = make_cifar()
    (root / CIFAR10.base_folder / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    message(config(), root, tmp_path)
    assert not (tmp_path / "evil").exists()


def test_its_presets_follow_the_published_recipe() -> None:
    assert {"cifar10", "cifar100"} <= set(FOLLOWING)
