"""CUB-200-2011 in its published form, with random images."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_makers.made_data import MadeData, few_classes
from data_makers.photographs import CLASSES, TEST, TRAIN, write_image

from skdtune.data.sets import cub200


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MadeData:
    """Write the files of a few classes."""
    monkeypatch.setattr(cub200, "CUB_200", few_classes(cub200.CUB_200))
    below = folder / "CUB_200_2011"
    classes = [f"{number:03}.Black_footed_Bird_{number}" for number in range(1, CLASSES + 1)]
    lists: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split")
    }
    number, last = 0, below
    for label, name in enumerate(classes, 1):
        for row in range(TRAIN + TEST):
            number += 1
            path = f"{name}/Bird_{number:04}.jpg"
            write_image(below / "images" / path)
            lists["images"].append(f"{number} {path}")
            lists["image_class_labels"].append(f"{number} {label}")
            lists["train_test_split"].append(f"{number} {int(row < TRAIN)}")
            last = below / "images" / path
    lists["classes"] = [f"{label} {name}" for label, name in enumerate(classes, 1)]
    for file, lines in lists.items():
        (below / f"{file}.txt").write_text("".join(f"{line}\n" for line in lines))
    settings = {"root": str(folder), "image_size": 8, "download": False}
    return MadeData(settings=settings, test_only=last)
