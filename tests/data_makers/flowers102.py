"""Oxford 102 Flowers in its published form, with random images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_makers.made_data import MadeData, few_classes
from data_makers.photographs import CLASSES, TEST, TRAIN, write_image
from scipy.io import savemat  # type: ignore[import-untyped]

from skdtune.data.sets import flowers102


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MadeData:
    """Write the files of a few classes."""
    monkeypatch.setattr(flowers102, "FLOWERS_102", few_classes(flowers102.FLOWERS_102))
    below = folder / "flowers-102"
    sets: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    labels = []
    for label in range(1, CLASSES + 1):
        for row in range(TRAIN + TEST):
            labels.append(label)
            write_image(below / "jpg" / f"image_{len(labels):05}.jpg")
            part = "tstid" if row >= TRAIN else "trnid" if row % 2 else "valid"
            sets[part].append(len(labels))
    savemat(below / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    arrays = {part: np.array([numbers], dtype=np.uint16) for part, numbers in sets.items()}
    savemat(below / "setid.mat", arrays)
    settings = {"root": str(folder), "image_size": 8, "download": False}
    return MadeData(settings=settings, test_only=below / "jpg" / f"image_{len(labels):05}.jpg")
