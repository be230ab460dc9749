"""What must not move: names of caches, order of images, splits, fingerprints."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skdtune.data import wall
from skdtune.data.cache import cached_image_set
from skdtune.data.catalogue import load_search_data, load_test_images, load_training_images
from skdtune.data.images import ImageSet
from skdtune.describe.config import DataConfig


def prints(tmp_path: Path, name: str, **values: Any) -> str:
    """Load all parts; return the fingerprints of train, validation, both, all and test."""
    config = DataConfig.model_validate({"name": name, "download": False, **values})
    folders = {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache"}
    search = load_search_data(config, **folders)
    full = load_training_images(config, **folders)
    with wall.test_split_open():
        test = load_test_images(config, **folders)
    parts = (search.train, search.val, search, full, test)
    return " ".join(part.fingerprint for part in parts)


def caches(tmp_path: Path) -> list[str]:
    """List the caches by name."""
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_dir())


def test_digits(tmp_path: Path) -> None:
    plain = "b31f674f1fc9 9cde4d942e11 1bacf1a441aa 1200bed31deb 3dacc1681686"
    limited = "c92038c13c5e 5d25fbb3999a 1920b3dcf680 359e7deabd10 3dacc1681686"
    assert prints(tmp_path, "digits") == plain
    assert prints(tmp_path, "digits", max_per_class=20, split_seed=3) == limited
    assert caches(tmp_path) == ["digits-test-20230518", "digits-train-20230518"]


@pytest.mark.parametrize(
    ("name", "plain", "limited"),
    [
        (
            "cifar10",
            "dd47ed192da3 96e550d625a3 6ef6d70a06c6 495e42277e86 78066ff55476",
            "da963b482996 44277b828292 baf5e7d128be 4a6a858a3afa 78066ff55476",
        ),
        (
            "cifar100",
            "8779ce86c949 156971a2f857 7c39ce8dd4a1 4169763772bb 0bd161097fad",
            "8088edccb252 f8047175b3af 6b11460ba233 d8392a68ede1 0bd161097fad",
        ),
    ],
)
def test_cifar(
    name: str, plain: str, limited: str, tmp_path: Path, make_cifar: Callable[..., Path]
) -> None:
    make_cifar(name)
    assert prints(tmp_path, name) == plain
    assert prints(tmp_path, name, max_per_class=3, split_seed=3) == limited


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("cifar10", "train", "cifar10-train-1aea5878cbef"),
        ("cifar10", "test", "cifar10-test-82ad4bc77074"),
        ("cifar100", "train", "cifar100-train-a555171c6af2"),
        ("cifar100", "test", "cifar100-test-f6b6c799c764"),
    ],
)
def test_a_cache_of_the_published_files_is_met_again(
    name: str, part: str, key: str, tmp_path: Path, make_images: Callable[..., ImageSet]
) -> None:
    images = make_images()
    cached_image_set(tmp_path / "cache", key, lambda _: images)
    config = DataConfig.model_validate({"name": name, "download": False})
    folders = {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache"}
    with wall.test_split_open():
        load = load_training_images if part == "train" else load_test_images
        assert load(config, **folders).fingerprint == images.fingerprint


def test_image_folder(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(24):
        part, label = ("train", "train", "train", "test")[number % 4], ("b", "a")[number // 4 % 2]
        path = tmp_path / "tree" / part / label / f"{number:02}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        os.utime(path, ns=(number, number))
    tree: dict[str, Any] = {"root": str(tmp_path / "tree"), "image_size": 8}
    plain = "fb667a4f9ae1 15ce40edf4a4 bd9a08534ebc d656528cd73c 82df743ccf84"
    limited = "b0e018543256 d8b0107f44f6 212d15636213 723dbdb0a6a6 82df743ccf84"
    assert prints(tmp_path, "imagefolder", **tree) == plain
    assert prints(tmp_path, "imagefolder", **tree, max_per_class=4, split_seed=3) == limited
    assert caches(tmp_path) == [
        "imagefolder-test-300c07549d1a",
        "imagefolder-train-bedf72bc9bb3",
        "imagefolder-train-c598da9f73ae",
    ]
