from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skdtune.catalogues.datasets import DATASETS
from skdtune.data import catalogue, wall
from skdtune.data.catalogue import load_search_data, load_training_images
from skdtune.data.channel_statistics import channel_statistics
from skdtune.data.images import ImageSet, Split
from skdtune.describe.config import DataConfig

CIFAR_TEST = ("cifar-10-batches-py/test_batch", "cifar-100-python/test")


def folders(tmp_path: Path) -> dict[str, Path]:
    return {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache"}


def load_test_images(config: DataConfig, *, data_dir: Path, cache_dir: Path) -> ImageSet:
    """Load the test part as a final evaluation does."""
    with wall.test_split_open():
        return catalogue.load_test_images(config, data_dir=data_dir, cache_dir=cache_dir)


def digits(**values: Any) -> DataConfig:
    return DataConfig(**{"name": "digits", **values})


def test_digits_are_divided_into_three_parts(tmp_path: Path) -> None:
    data = load_search_data(digits(), **folders(tmp_path))
    test = load_test_images(digits(), **folders(tmp_path))
    assert len(data.train) + len(data.val) + len(test) == 1797
    assert len(test) == pytest.approx(1797 / 4, abs=5)
    assert data.train.image_shape == (1, 8, 8)
    assert data.train.class_names == tuple("0123456789")
    assert data.train.images_NCHW.max() == 255
    seen = {image.tobytes() for part in (data.train, data.val) for image in part.images_NCHW}
    assert not seen & {image.tobytes() for image in test.images_NCHW}


def test_the_test_digits_do_not_depend_on_the_settings(tmp_path: Path) -> None:
    first = load_test_images(digits(), **folders(tmp_path))
    second = load_test_images(
        digits(split_seed=5, val_fraction=0.5, max_per_class=3), **folders(tmp_path)
    )
    assert first.fingerprint == second.fingerprint


def test_settings_change_the_fingerprint(tmp_path: Path) -> None:
    settings = [digits(), digits(), digits(split_seed=1), digits(val_fraction=0.2)]
    settings.append(digits(max_per_class=20))
    prints = [load_search_data(one, **folders(tmp_path)).fingerprint for one in settings]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_a_limit_comes_before_the_split(tmp_path: Path) -> None:
    data = load_search_data(digits(max_per_class=20, val_fraction=0.25), **folders(tmp_path))
    assert np.bincount(data.train.labels_N).tolist() == [15] * 10
    assert np.bincount(data.val.labels_N).tolist() == [5] * 10


def test_statistics_are_those_of_the_training_part(tmp_path: Path) -> None:
    data = load_search_data(digits(), **folders(tmp_path))
    mean_C, std_C = channel_statistics(data.train)
    assert data.mean_C == mean_C
    assert data.std_C == std_C


def test_the_training_images_are_both_parts(tmp_path: Path) -> None:
    data = load_search_data(digits(), **folders(tmp_path))
    full = load_training_images(digits(), **folders(tmp_path))
    assert len(full) == len(data.train) + len(data.val)


@pytest.mark.parametrize("name", DATASETS)
def test_a_search_never_asks_for_the_test_part(
    tmp_path: Path,
    make_images: Callable[..., ImageSet],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def load(config: DataConfig, split: Split, **folders: Path) -> ImageSet:
        assert split == "train"
        return make_images()

    monkeypatch.setattr(catalogue, "load_part", load)
    config = DataConfig.model_validate({"name": name, "root": "anywhere"})
    load_search_data(config, **folders(tmp_path))
    with pytest.raises(AssertionError):
        load_test_images(config, **folders(tmp_path))


@pytest.mark.parametrize("number", [0, 1])
def test_a_search_on_cifar_never_opens_the_test_file(
    make_cifar: Callable[..., Path],
    never_opened: Callable[[Path], AbstractContextManager[None]],
    tmp_path: Path,
    number: int,
) -> None:
    name = ("cifar10", "cifar100")[number]
    config = DataConfig.model_validate({"name": name, "download": False})
    root = make_cifar(config.name)
    with never_opened(root / CIFAR_TEST[number]):
        load_search_data(config, **folders(tmp_path))
        with pytest.raises(AssertionError, match="was opened"):
            load_test_images(config, **folders(tmp_path))


def test_a_search_on_folders_never_opens_the_test_folder(
    make_tree: Callable[..., Path],
    never_opened: Callable[[Path], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    root = make_tree()
    config = DataConfig(name="imagefolder", root=str(root), image_size=8)
    with never_opened(root / "test"):
        load_search_data(config, **folders(tmp_path))
        with pytest.raises(AssertionError, match="was opened"):
            load_test_images(config, **folders(tmp_path))
