"""Stanford Dogs in its published form, with random images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_makers.made_data import MadeData, few_classes
from data_makers.photographs import CLASSES, TEST, TRAIN, write_image
from scipy.io import savemat  # type: ignore[import-untyped]

from skdtune.data.sets import stanford_dogs


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MadeData:
    """Write the files of a few classes."""
    monkeypatch.setattr(stanford_dogs, "STANFORD_DOGS", few_classes(stanford_dogs.STANFORD_DOGS))
    below = folder / "stanford-dogs"
    (below / "lists").mkdir(parents=True)
    for part, rows in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        files, labels = [], []
        for label in range(1, CLASSES + 1):
            name = f"n0208{label}-Kind_of_dog_{label}"
            for row in rows:
                path = f"{name}/n0208{label}_{row}.jpg"
                write_image(below / "images" / path)
                files.append(path)
                labels.append(label)
        cells = np.empty((len(files), 1), dtype=object)
        cells[:, 0] = files
        content = {"file_list": cells, "labels": np.array(labels, dtype=np.uint8)[:, None]}
        savemat(below / "lists" / f"{part}_list.mat", content)
    settings = {"root": str(folder), "image_size": 8, "download": False}
    return MadeData(settings=settings, test_only=below / "lists" / "test_list.mat")
