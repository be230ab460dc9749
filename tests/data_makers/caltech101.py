"""Caltech-101 in its published folders, with random images."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_makers.made_data import MadeData, few_classes
from data_makers.photographs import CLASSES, TEST, write_image

from skdtune.data.sets import caltech101


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MadeData:
    """Write the files of a few classes."""
    monkeypatch.setattr(caltech101, "CALTECH_101", few_classes(caltech101.CALTECH_101))
    below = folder / "101_ObjectCategories"
    names = ["BACKGROUND_Google", *(f"Ant_{number}" for number in range(CLASSES))]
    for name in names:
        for row in range(1, caltech101.TRAIN_PER_CLASS + TEST + 1):
            write_image(below / name / f"image_{row:04}.jpg")
    settings = {"root": str(folder), "image_size": 8, "download": False}
    listed = caltech101.CALTECH_101.list_part(folder, "test")
    # No list names what belongs there.
    return MadeData(settings=settings, test_only=below / listed.paths[-1], is_missed=False)
