"""Oxford-IIIT Pets in its published form, divided by its own lists.

Source: Parkhi et al., Cats and Dogs, 2012; https://www.robots.ox.ac.uk/~vgg/data/pets/;
checksums by torchvision.
"""

from __future__ import annotations

from pathlib import Path

from skdtune.data.archive import Archive
from skdtune.data.data_set import FileListing
from skdtune.data.listed_files import ListedFiles, read_rows
from skdtune.describe.data_facts import DataFacts

_ADDRESS = "https://www.robots.ox.ac.uk/~vgg/data/pets"
_FOLDER = "oxford-iiit-pet"


class OxfordPets(ListedFiles):
    """Photographs of 37 breeds of cats and dogs."""

    def list_part(self, root: Path, split: str) -> FileListing:
        """List what ``trainval.txt`` or ``test.txt`` names, image and number of the breed."""
        folder = root / _FOLDER
        name = "trainval.txt" if split == "train" else "test.txt"
        rows = [row for row in read_rows(folder / "annotations" / name) if row[0] != "#"]
        names = {int(row[1]) - 1: row[0].rpartition("_")[0].replace("_", " ") for row in rows}
        return FileListing(
            folder=folder / "images",
            paths=[f"{row[0]}.jpg" for row in rows],
            labels=[int(row[1]) - 1 for row in rows],
            class_names=tuple(names[label] for label in sorted(names)),
        )

    def missing_test(self, root: Path) -> str:
        """Look for the list of the test part."""
        path = root / _FOLDER / "annotations" / "test.txt"
        return "" if path.is_file() else f"there is no file {path}"


OXFORD_PETS = OxfordPets(
    about=DataFacts(
        title="Oxford-IIIT Pets: photographs of 37 breeds of cats and dogs",
        num_classes=37,
        num_train=3_680,
        num_test=3_669,
        address=f"{_ADDRESS}/",
        download_mb=811,
        licence="CC BY-SA 4.0",
    ),
    sources=(
        Archive(
            url=f"{_ADDRESS}/data/images.tar.gz",
            filename="images.tar.gz",
            md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
            folder=f"{_FOLDER}/images",
        ),
        Archive(
            url=f"{_ADDRESS}/data/annotations.tar.gz",
            filename="annotations.tar.gz",
            md5="95a8c909bbe2e81eed6a22bccdf3f68f",
            folder=f"{_FOLDER}/annotations",
        ),
    ),
)
