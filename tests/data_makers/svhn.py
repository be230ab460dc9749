"""SVHN in its published form, with random images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_makers.made_data import MadeData
from scipy.io import savemat  # type: ignore[import-untyped]

from skdtune.data.download import file_md5
from skdtune.data.sets import svhn


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MadeData:
    """Write the two files, with checksums that the data set then believes in."""
    folder.mkdir(parents=True)
    files = {}
    for seed, (part, number) in enumerate((("train", 40), ("test", 20))):
        random = np.random.default_rng(seed)
        path = folder / svhn.SVHN.files[part].filename
        images_HWCN = random.integers(0, 256, (32, 32, 3, number), dtype=np.uint8)
        # The digit 0 is called 10.
        labels_N1 = (np.arange(number, dtype=np.uint8) % 10 + 1)[:, None]
        savemat(path, {"X": images_HWCN, "y": labels_N1})
        files[part] = replace(svhn.SVHN.files[part], md5=file_md5(path))
    monkeypatch.setattr(svhn, "SVHN", replace(svhn.SVHN, files=files))
    settings = {"root": str(folder), "download": False}
    return MadeData(settings=settings, test_only=folder / files["test"].filename)
