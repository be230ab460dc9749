"""Small image files, no two alike, for the data sets of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

#: Classes that small data have, of however many there are.
CLASSES = 3
#: Images of each class in the training and in the test part.
TRAIN, TEST = 4, 2


def write_image(path: Path, *, grey: bool = False) -> None:
    """Write an image whose pixels follow from its path; the name decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(path.name.encode()) + list(path.parent.name.encode()))
    shape = (10, 14) if grey else (10, 14, 3)
    Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path, format="JPEG")
