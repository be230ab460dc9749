"""Oxford-IIIT Pets in its published form, with random images."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_makers.made_data import MadeData, few_classes
from data_makers.photographs import CLASSES, TEST, TRAIN, write_image

from skdtune.data.sets import oxford_pets


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MadeData:
    """Write the files of a few classes."""
    monkeypatch.setattr(oxford_pets, "OXFORD_PETS", few_classes(oxford_pets.OXFORD_PETS))
    below = folder / "oxford-iiit-pet"
    (below / "annotations").mkdir(parents=True)
    for part, rows in (("trainval", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        lines = ["#Image CLASS-ID SPECIES BREED ID", "# a remark"][:0]
        for label in range(1, CLASSES + 1):
            for row in rows:
                name = f"american_cat_{label}_{row}"
                write_image(below / "images" / f"{name}.jpg")
                lines.append(f"{name} {label} 1 1")
        (below / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
    settings = {"root": str(folder), "image_size": 8, "download": False}
    return MadeData(settings=settings, test_only=below / "annotations" / "test.txt")
