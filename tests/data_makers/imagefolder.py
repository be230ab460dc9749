"""A folder of random images, of several formats and of one size that is no square."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_makers.made_data import MadeData
from PIL import Image


def make(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch | None = None,
    *,
    train: int = 4,
    test: int = 2,
    classes: tuple[str, ...] = ("cat", "dog"),
) -> MadeData:
    """Write so many images of each class and part; a part of none has no folder."""
    random = np.random.default_rng(0)
    for split, number in (("train", train), ("test", test)):
        for name in classes if number else ():
            below = folder / split / name
            below.mkdir(parents=True)
            for row in range(number):
                pixels = random.integers(0, 256, (10, 14, 3), dtype=np.uint8)
                suffix = ("png", "JPG", "jpeg")[row % 3]
                Image.fromarray(pixels).save(below / f"{row:03}.{suffix}")
    settings = {"root": str(folder), "image_size": 8}
    return MadeData(settings=settings, test_only=folder / "test")
