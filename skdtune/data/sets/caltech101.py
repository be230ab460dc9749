"""Caltech-101 in its published folders, 30 images of each class to learn from.

Source: Fei-Fei, Fergus and Perona, Learning Generative Visual Models from Few Training Examples,
2004; https://data.caltech.edu/records/mzrjq-6wc02. It comes undivided. The custom is 30 training
images of each class and the others for the test; which 30 is drawn anew by everyone. Here it is
the 30 whose names have the smallest SHA-256, the same on every machine: not the first ones, which
were collected together. The class of clutter, ``BACKGROUND_Google``, is left out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from skdtune.data.archive import Archive
from skdtune.data.data_set import FileListing
from skdtune.data.listed_files import ListedFiles, images_in
from skdtune.data.real_files import entries_of
from skdtune.describe.data_facts import DataFacts

_FOLDER = "101_ObjectCategories"
_CLUTTER = "BACKGROUND_Google"
TRAIN_PER_CLASS = 30
"""Images of each class that are learned from and chosen by."""


class Caltech101(ListedFiles):
    """Photographs and drawings of 101 kinds of things; some are grey."""

    def list_part(self, root: Path, split: str) -> FileListing:
        """List the images of each class, and take those of a part."""
        folder = root / _FOLDER
        names = sorted(
            entry.name
            for entry in entries_of(folder)
            if entry.is_dir() and entry.name != _CLUTTER and not entry.name.startswith(".")
        )
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(names):
            images = sorted(
                (
                    f"{name}/{image}"
                    for image in images_in(folder / name, (".jpg",), TRAIN_PER_CLASS + 1)
                ),
                key=lambda path: hashlib.sha256(path.encode()).digest(),
            )
            part = images[:TRAIN_PER_CLASS] if split == "train" else images[TRAIN_PER_CLASS:]
            paths += part
            labels += [label] * len(part)
        return FileListing(folder=folder, paths=paths, labels=labels, class_names=tuple(names))


CALTECH_101 = Caltech101(
    about=DataFacts(
        title="Caltech-101: pictures of 101 kinds of things",
        num_classes=101,
        num_train=TRAIN_PER_CLASS * 101,
        num_test=8_677 - TRAIN_PER_CLASS * 101,
        address="https://data.caltech.edu/records/mzrjq-6wc02",
        download_mb=137,
        licence="CC BY 4.0",
        recipe="caltech101",
    ),
    sources=(
        Archive(
            # Inside of the archive that is published there: one file of it, taken out by hand.
            url="101_ObjectCategories.tar.gz out of caltech-101.zip at "
            "https://data.caltech.edu/records/mzrjq-6wc02",
            filename="101_ObjectCategories.tar.gz",
            md5="b224c7392d521a49829488ab0f1120d9",
            folder=_FOLDER,
            is_fetched=False,
        ),
    ),
)
