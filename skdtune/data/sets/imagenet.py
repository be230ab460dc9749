"""ImageNet-1k and Imagenette: a folder for each class, named by its number in WordNet.

Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (arXiv 1409.0575),
https://www.image-net.org; https://github.com/fastai/imagenette. The images of ``val`` are the test
part, as everywhere, since those of ``test`` have no labels.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from skdtune.data.archive import Archive
from skdtune.data.data_set import FileDataSet, FileListing, Glance, PartRequest
from skdtune.data.listed_files import ListedFiles, images_in, read_list
from skdtune.data.real_files import entries_of
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

_SUFFIXES = (".jpeg", ".jpg")
_NAMES = "LOC_synset_mapping.txt"
_FLAT_LABELS = "LOC_val_solution.csv"


class ImageNet(FileDataSet):
    """``train/<wnid>/`` and ``val/<wnid>/``; or a flat ``val`` with the list of its labels."""

    def glance(self, request: PartRequest) -> Glance:
        """List the training images, unless the whole folder is somewhere else."""
        if not request.root.exists():
            return Glance(missing=f"there is no folder {request.root}")
        val = request.root / "val"
        missing_test = "" if val.is_dir() else f"there is no folder {val}"
        return Glance(training_files=self.list_files(request), missing_test=missing_test)

    def list_files(self, request: PartRequest) -> FileListing:
        """List the images of each class."""
        root = request.root
        wnids = folders_of(root / "train")
        names = _names(root / _NAMES) if (root / _NAMES).is_file() else {}
        if request.split == "train":
            return in_folders(root, "train", wnids, names)
        if folders_of(root / "val"):
            return in_folders(root, "val", wnids, names)
        return _flat(root, wnids, names)


@dataclass(frozen=True, kw_only=True)
class Imagenette(ListedFiles):
    """Ten classes of ImageNet that are easy to tell apart, at the size that is there."""

    folders: tuple[str, ...]
    """What the sizes are unpacked to, the one that is fetched first."""

    names: Mapping[str, str]
    """Of each class."""

    def glance(self, request: PartRequest) -> Glance:
        """Take whatever size is there."""
        if self._here(request.root) == self.folders[0]:
            return ListedFiles.glance(self, request)
        return Glance(
            training_files=self.list_part(request.root, "train"),
            missing_test=self.missing_test(request.root),
        )

    def list_files(self, request: PartRequest) -> FileListing:
        """List the images of a part; the smallest size that is good for 224 pixels is fetched."""
        if self._here(request.root) == self.folders[0]:
            return ListedFiles.list_files(self, request)
        return self.list_part(request.root, request.split)

    def list_part(self, root: Path, split: str) -> FileListing:
        """List the images of each class."""
        folder = root / self._here(root)
        wnids = folders_of(folder / "train")
        return in_folders(folder, "train" if split == "train" else "val", wnids, self.names)

    def missing_test(self, root: Path) -> str:
        """Look for the folder of the test part."""
        val = root / self._here(root) / "val"
        return "" if val.is_dir() else f"there is no folder {val}"

    def _here(self, root: Path) -> str:
        return next((name for name in self.folders if (root / name).is_dir()), self.folders[0])


def folders_of(parent: Path) -> list[str]:
    """List the classes of a part, in the order of their numbers.

    Raises:
        DataError: If there is no such folder.
    """
    if not parent.is_dir():
        raise DataError(f"there is no folder {parent}: expected {parent}/<wnid>/<image>")
    return sorted(e.name for e in entries_of(parent) if e.is_dir() and not e.name.startswith("."))


def in_folders(root: Path, part: str, wnids: list[str], names: Mapping[str, str]) -> FileListing:
    """List the images of ``<part>/<wnid>/``."""
    paths: list[str] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        fewest = 2 if part == "train" else 1
        images = [
            f"{part}/{wnid}/{name}" for name in images_in(root / part / wnid, _SUFFIXES, fewest)
        ]
        paths += images
        labels += [label] * len(images)
    class_names = tuple(names.get(wnid, wnid) for wnid in wnids)
    return FileListing(folder=root, paths=paths, labels=labels, class_names=class_names)


def _flat(root: Path, wnids: list[str], names: Mapping[str, str]) -> FileListing:
    """List ``val/<image>`` by the list that comes with it in the competition's archive."""
    label_of = {wnid: label for label, wnid in enumerate(wnids)}

    def read(path: Path) -> list[tuple[str, int]]:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["ImageId"], row["PredictionString"]) for row in csv.DictReader(file)]
        return sorted((image, label_of[boxes.split()[0]]) for image, boxes in rows)

    rows = read_list(root / _FLAT_LABELS, read)
    return FileListing(
        folder=root,
        paths=[f"val/{image}.JPEG" for image, _ in rows],
        labels=[label for _, label in rows],
        class_names=tuple(names.get(wnid, wnid) for wnid in wnids),
    )


def _names(path: Path) -> dict[str, str]:
    """Read the first word of each class; one of two classes is told apart by its number."""
    text = read_list(path, lambda p: p.read_text(encoding="utf-8"))
    words = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    first = {wnid: word.partition(",")[0].strip() for wnid, word in words.items()}
    shared = list(first.values())
    return {
        wnid: name if shared.count(name) == 1 else f"{name} ({wnid})"
        for wnid, name in first.items()
    }


IMAGENET = ImageNet(
    about=DataFacts(
        title="ImageNet-1k: photographs of a thousand kinds of things",
        num_classes=1000,
        num_train=1_281_167,
        num_test=50_000,
        address="https://www.image-net.org",
        download_mb=144_000,
        licence="for research, after registration",
        needs_root="the folder that holds train/<wnid>/ and val/",
        may_be_part=True,
    )
)

IMAGENETTE = Imagenette(
    about=DataFacts(
        title="Imagenette: photographs of ten classes of ImageNet",
        num_classes=10,
        num_train=9_469,
        num_test=3_925,
        address="https://github.com/fastai/imagenette",
        download_mb=342,
        licence="Apache 2.0 for the choice; the images are ImageNet's, for research",
    ),
    sources=(
        Archive(
            url="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
            filename="imagenette2-320.tgz",
            md5="3df6f0d01a2c9592104656642f5e78a3",
            folder="imagenette2-320",
        ),
    ),
    folders=("imagenette2-320", "imagenette2", "imagenette2-160"),
    names={
        "n01440764": "tench",
        "n02102040": "English springer",
        "n02979186": "cassette player",
        "n03000684": "chain saw",
        "n03028079": "church",
        "n03394916": "French horn",
        "n03417042": "garbage truck",
        "n03425413": "gas pump",
        "n03445777": "golf ball",
        "n03888257": "parachute",
    },
)
