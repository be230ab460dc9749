"""Oxford 102 Flowers in its published form, divided by its own list.

Source: Nilsback and Zisserman, Automated Flower Classification over a Large Number of Classes,
2008; https://www.robots.ox.ac.uk/~vgg/data/flowers/102/; checksums and names of the classes by
torchvision. Its training and its validation part, ten images of each class, are one here: which
images a search is judged on is the study's choice.
"""

from __future__ import annotations

from pathlib import Path

from skdtune.data.archive import Archive, PublishedFile
from skdtune.data.data_set import FileListing
from skdtune.data.listed_files import ListedFiles, read_mat
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

_ADDRESS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
_FOLDER = "flowers-102"


class Flowers102(ListedFiles):
    """Photographs of 102 kinds of flowers."""

    def list_part(self, root: Path, split: str) -> FileListing:
        """List what ``setid.mat`` says of a part, with the labels of ``imagelabels.mat``."""
        folder = root / _FOLDER
        sets, labels = read_mat(folder / "setid.mat"), read_mat(folder / "imagelabels.mat")
        try:
            parts = ("trnid", "valid") if split == "train" else ("tstid",)
            numbers = [int(number) for part in parts for number in sets[part].ravel()]
            label_of = [int(label) - 1 for label in labels["labels"].ravel()]
            chosen = [label_of[number - 1] for number in numbers]
        except (KeyError, AttributeError, IndexError, ValueError) as error:
            raise DataError(
                f"the lists in {folder} are not the published ones ({error!r})"
            ) from error
        return FileListing(
            folder=folder / "jpg",
            paths=[f"image_{number:05d}.jpg" for number in numbers],
            labels=chosen,
            class_names=_class_names(max(label_of) + 1),
        )


def _class_names(number: int) -> tuple[str, ...]:
    """Return the names that torchvision has from the page of the data set."""
    from torchvision.datasets import Flowers102 as Theirs

    return tuple(Theirs.classes[:number])


FLOWERS_102 = Flowers102(
    about=DataFacts(
        title="Oxford 102 Flowers: photographs of 102 kinds of flowers",
        num_classes=102,
        num_train=2_040,
        num_test=6_149,
        address=f"{_ADDRESS}/",
        download_mb=345,
        licence="none stated by its authors, who ask to be cited",
    ),
    sources=(
        Archive(
            url=f"{_ADDRESS}/102flowers.tgz",
            filename="102flowers.tgz",
            md5="52808999861908f626f3c1f4e79d11fa",
            folder=f"{_FOLDER}/jpg",
        ),
        PublishedFile(
            url=f"{_ADDRESS}/imagelabels.mat",
            filename=f"{_FOLDER}/imagelabels.mat",
            md5="e0620be6f572b9609742df49c70aed4d",
        ),
        PublishedFile(
            url=f"{_ADDRESS}/setid.mat",
            filename=f"{_FOLDER}/setid.mat",
            md5="a5357ecc9cb78c4bef273ce3793fc85c",
        ),
    ),
)
