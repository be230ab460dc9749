"""Files of CIFAR-10 and CIFAR-100 in the published format, with random images."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers.made_data import MadeData

from skdtune.data.sets import cifar


def make(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    entry: str = "CIFAR_10",
    unpacked: bool = True,
) -> MadeData:
    """Write the files, with checksums that the data set then believes in.

    Args:
        folder: The folder of the data.
        monkeypatch: Sets the checksums until the test ends.
        entry: Which of the two.
        unpacked: Leave the unpacked folder and no archive, else the archive only.
    """
    published = getattr(cifar, entry)
    classes = published.about.num_classes
    below = folder / published.archive.folder
    below.mkdir(parents=True)
    contents: dict[str, Any] = {}
    for seed, (name, _) in enumerate([*published.files["train"], *published.files["test"]]):
        random = np.random.default_rng(seed)
        images = random.integers(0, 256, (2 * classes, 3072), dtype=np.uint8)
        labels = [row % classes for row in range(2 * classes)]
        contents[name] = {"data": images, f"{published.label}s": labels}
        if published.label == "fine_label":
            contents[name]["coarse_labels"] = [0] * len(labels)
    names = [f"name{number}" for number in range(classes)]
    contents[published.names[0]] = {f"{published.label}_names": names}
    md5s = {}
    for name, content in contents.items():
        raw = pickle.dumps(content, protocol=2)
        (below / name).write_bytes(raw)
        md5s[name] = hashlib.md5(raw).hexdigest()
    archive = folder / published.archive.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(below, published.archive.folder)
    made = replace(
        published,
        archive=replace(published.archive, md5=hashlib.md5(archive.read_bytes()).hexdigest()),
        files={
            part: tuple((name, md5s[name]) for name, _ in files)
            for part, files in published.files.items()
        },
        names=(published.names[0], md5s[published.names[0]]),
    )
    monkeypatch.setattr(cifar, entry, made)
    if unpacked:
        archive.unlink()
    else:
        for path in below.iterdir():
            path.unlink()
        below.rmdir()
    test_only = below / published.files["test"][0][0]
    return MadeData(settings={"root": str(folder), "download": False}, test_only=test_only)
