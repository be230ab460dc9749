"""Caltech-UCSD Birds-200-2011 in its published form, divided by its own list.

Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011;
https://www.vision.caltech.edu/datasets/cub_200_2011/. ``train_test_split.txt`` divides it. The
code of arXiv 2305.09183 takes the first four fifths of the images in the order of their classes
instead, so that it learns nothing of the last classes and is tested on them alone.
"""

from __future__ import annotations

from pathlib import Path

from skdtune.data.archive import Archive
from skdtune.data.data_set import FileListing
from skdtune.data.listed_files import ListedFiles, read_rows
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

_FOLDER = "CUB_200_2011"


class Cub200(ListedFiles):
    """Photographs of two hundred kinds of birds."""

    def list_part(self, root: Path, split: str) -> FileListing:
        """List what the lists of images, of classes and of the parts say."""
        folder = root / _FOLDER
        names = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
        images, classes, is_train, class_names = (
            {row[0]: row[-1] for row in read_rows(folder / name)} for name in names
        )
        if not images.keys() == classes.keys() == is_train.keys():
            raise DataError(f"the lists in {folder} are of different images: unpack it again")
        label_of = {number: label for label, number in enumerate(class_names)}
        wanted = "1" if split == "train" else "0"
        kept = [number for number in images if is_train[number] == wanted]
        return FileListing(
            folder=folder / "images",
            paths=[images[number] for number in kept],
            labels=[label_of[classes[number]] for number in kept],
            class_names=tuple(
                name.partition(".")[2].replace("_", " ") for name in class_names.values()
            ),
        )


CUB_200 = Cub200(
    about=DataFacts(
        title="CUB-200-2011: photographs of 200 kinds of birds",
        num_classes=200,
        num_train=5_994,
        num_test=5_794,
        address="https://data.caltech.edu/records/65de6-vp158",
        download_mb=1_151,
        licence="none stated; the images are their photographers', for research",
        recipe="cub200",
    ),
    sources=(
        Archive(
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            filename="CUB_200_2011.tgz",
            md5="97eceeb196236b17998738112f37df78",
            folder=_FOLDER,
        ),
    ),
)
