"""Fashion-MNIST in its published form, with random images."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_makers.made_data import MadeData

from skdtune.data.download import file_md5
from skdtune.data.sets import fashion_mnist


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MadeData:
    """Write the four files, with checksums that the data set then believes in."""
    published = fashion_mnist.FASHION_MNIST
    files = {}
    for seed, (part, number) in enumerate((("train", 40), ("test", 20))):
        random = np.random.default_rng(seed)
        pixels = random.integers(0, 256, number * 28 * 28, dtype=np.uint8).tobytes()
        labels = (np.arange(number, dtype=np.uint8) % 10).tobytes()
        contents = (
            struct.pack(">4i", 2051, number, 28, 28) + pixels,
            struct.pack(">2i", 2049, number) + labels,
        )
        written = []
        for file, content in zip(published.files[part], contents, strict=True):
            path = folder / file.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content))
            written.append(replace(file, md5=file_md5(path)))
        files[part] = (written[0], written[1])
    monkeypatch.setattr(fashion_mnist, "FASHION_MNIST", replace(published, files=files))
    settings = {"root": str(folder), "download": False}
    return MadeData(settings=settings, test_only=folder / files["test"][0].filename)
