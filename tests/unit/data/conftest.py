from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers import cifar10, imagefolder

from skdtune.data.images import ImageSet, image_set


@pytest.fixture
def make_images() -> Callable[..., ImageSet]:
    def make(
        num_images: int = 24, classes: int = 3, side: int = 8, channels: int = 3, seed: int = 0
    ) -> ImageSet:
        random = np.random.default_rng(seed)
        shape = (num_images, side, side, channels)
        return image_set(
            random.integers(0, 256, shape, dtype=np.uint8),
            np.arange(num_images) % classes,
            tuple(f"class{number}" for number in range(classes)),
        )

    return make


@pytest.fixture
def make_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write files in the published format, and return the folder of the data."""

    def make(name: str = "cifar10", *, unpacked: bool = True) -> Path:
        entry = {"cifar10": "CIFAR_10", "cifar100": "CIFAR_100"}[name]
        cifar10.make(tmp_path / "data", monkeypatch, entry=entry, unpacked=unpacked)
        return tmp_path / "data"

    return make


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of images, and return it."""

    def make(**sizes: Any) -> Path:
        imagefolder.make(tmp_path / "tree", **sizes)
        return tmp_path / "tree"

    return make
