"""Imagenette in its published form, with random images."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_makers.made_data import MadeData, few_classes
from data_makers.photographs import CLASSES, TEST, TRAIN, write_image

from skdtune.data.sets import imagenet


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MadeData:
    """Write the files of a few classes."""
    monkeypatch.setattr(imagenet, "IMAGENETTE", few_classes(imagenet.IMAGENETTE))
    below = folder / "imagenette2-320"
    wnids = [f"n0000000{number}" for number in range(CLASSES)]
    for wnid in wnids:
        for part, number in (("train", TRAIN), ("val", TEST)):
            for row in range(number):
                write_image(below / part / wnid / f"{wnid}_{part}_{row}.JPEG")
    settings = {"root": str(folder), "image_size": 8, "download": False}
    return MadeData(settings=settings, test_only=below / "val")
