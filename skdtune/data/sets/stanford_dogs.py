"""Stanford Dogs in its published form, divided by its own lists.

Source: Khosla et al., Novel Dataset for Fine-Grained Image Categorization, 2011;
http://vision.stanford.edu/aditya86/ImageNetDogs/. Its authors give no checksums.
"""

from __future__ import annotations

from pathlib import Path

from skdtune.data.archive import Archive
from skdtune.data.data_set import FileListing
from skdtune.data.listed_files import ListedFiles, read_mat
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

_ADDRESS = "http://vision.stanford.edu/aditya86/ImageNetDogs"
_FOLDER = "stanford-dogs"


class StanfordDogs(ListedFiles):
    """Photographs of 120 breeds of dogs."""

    def list_part(self, root: Path, split: str) -> FileListing:
        """List what ``train_list.mat`` or ``test_list.mat`` names; breeds are named by folders."""
        path = root / _FOLDER / "lists" / f"{split}_list.mat"
        listed = read_mat(path)
        try:
            paths = [str(file) for file in listed["file_list"].ravel()]
            labels = [int(label) - 1 for label in listed["labels"].ravel()]
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not the published list ({error!r})") from error
        folders = sorted({file.partition("/")[0] for file in paths})
        return FileListing(
            folder=root / _FOLDER / "images",
            paths=paths,
            labels=labels,
            class_names=tuple(name.partition("-")[2].replace("_", " ") for name in folders),
        )

    def missing_test(self, root: Path) -> str:
        """Look for the list of the test part."""
        path = root / _FOLDER / "lists" / "test_list.mat"
        return "" if path.is_file() else f"there is no file {path}"


STANFORD_DOGS = StanfordDogs(
    about=DataFacts(
        title="Stanford Dogs: photographs of 120 breeds of dogs",
        num_classes=120,
        num_train=12_000,
        num_test=8_580,
        address=f"{_ADDRESS}/",
        download_mb=794,
        licence="none stated; the images are ImageNet's, for research",
        recipe="stanford_dogs",
    ),
    sources=(
        Archive(
            url=f"{_ADDRESS}/images.tar",
            filename="images.tar",
            md5=None,
            folder=f"{_FOLDER}/images",
        ),
        Archive(
            url=f"{_ADDRESS}/lists.tar", filename="lists.tar", md5=None, folder=f"{_FOLDER}/lists"
        ),
    ),
)
