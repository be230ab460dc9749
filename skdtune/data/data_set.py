"""What a data set is: what is known of it, and how its images and labels are decoded.

A data set is one object in one file, built in under ``sets/`` or offered by an installed package.
It looks at a request and at its own files, and at nothing else: the wall around the test part,
the limit per class, the cache and the fingerprint are the same for all (``loading.py``).

What is known of a data set is asked where a study is only described, so neither this file nor that
of a data set imports numpy, torch or what decodes images before it is asked to decode.

Shape legend: N images, H height, W width, C channels.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skdtune.catalogues.datasets import DATASETS
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError, InputError, in_one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from skdtune.data.images import Split
    from skdtune.describe.data_config import DataConfig


@dataclass(frozen=True, kw_only=True)
class PartRequest:
    """Which part of a data set is wanted, and where its files are."""

    name: str
    """Name of the data set in a study."""

    split: Split
    """Which part; nothing of the other one may be opened but what names the classes."""

    root: Path
    """Folder of the data; it need not exist."""

    download: bool
    """Whether what is missing may be fetched."""

    @classmethod
    def of(cls, config: DataConfig, split: Split, data_dir: Path) -> PartRequest:
        """Ask for a part as data settings do.

        Args:
            config: Data settings.
            split: Which part.
            data_dir: Where the data lie unless ``config.root`` says otherwise.
        """
        root = Path(config.root or data_dir).expanduser()
        return cls(name=config.name, split=split, root=root, download=config.download)

    @property
    def fewest_per_class(self) -> int:
        """Images that each class needs: one can be tested on, but not split for a search."""
        return 2 if self.split == "train" else 1


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodedPart:
    """A part of a data set as plain arrays; row i of both is the same image."""

    images_NHWC: NDArray[np.uint8]
    """Pixel values 0 to 255."""

    labels_N: NDArray[np.int64]
    """Class numbers from 0."""

    class_names: tuple[str, ...]
    """Name of each class, by number; the same for both parts."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images_NHWC)


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """The image files of a part, before any is opened; path i and label i are the same image."""

    folder: Path
    """Folder that the paths start from."""

    paths: Sequence[str]
    """Relative to ``folder``, with forward slashes, in any order."""

    labels: Sequence[int]
    """Class numbers from 0."""

    class_names: tuple[str, ...]
    """Name of each class, by number; the same for both parts."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.paths)


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What can be seen of a data set on this machine, of which no image was opened."""

    missing: str = ""
    """Why the data are not here, in one line; empty if they are, or can be fetched."""

    missing_test: str = ""
    """Why the test part, which no search needs, is not here; empty if it is, or can be fetched."""

    training_files: FileListing | None = None
    """The image files of the training part, where there are such and they are here."""


@dataclass(frozen=True, kw_only=True)
class DataSet(ABC):
    """What both forms of a data set have in common."""

    about: DataFacts
    """What is known of it."""

    def glance(self, request: PartRequest) -> Glance:
        """Look whether the data are here and laid out as they must be, when a study is created.

        Nothing is fetched or decoded, and of the test part nothing is looked at but whether it is
        there. Whoever says nothing else only misses a folder that nothing can be fetched into.

        Args:
            request: The training part.

        Raises:
            DataError: If the data are here and cannot be used.
        """
        if self.about.is_at_hand or request.download or request.root.is_dir():
            return Glance()
        return Glance(missing=f"there is no folder {request.root}")


class ArrayDataSet(DataSet):
    """A data set whose images all have one size and are decoded a part at a time."""

    @abstractmethod
    def decode(self, request: PartRequest) -> DecodedPart:
        """Decode a whole part; the same request gives the same rows on every machine.

        Raises:
            DataError: If the data are missing or damaged.
        """

    def version(self, request: PartRequest) -> str:
        """Tell what decides the decoded images, beside the name of the data set and the part.

        It is asked for at every start, before any file is opened, and names the cache: it must
        change whenever ``decode`` would return something else.
        """
        return "1"


class FileDataSet(DataSet):
    """A data set of image files of any size, which become RGB squares of ``data.image_size``."""

    @abstractmethod
    def list_files(self, request: PartRequest) -> FileListing:
        """List the image files of a part without opening them; done at every start.

        Raises:
            DataError: If the data are missing or damaged.
        """


@contextlib.contextmanager
def blamed_on_package(name: str, what: str) -> Iterator[None]:
    """Say of an error of a package whose it is, which it would not tell; ours say what is wrong.

    Args:
        name: Name of the data set.
        what: What it was asked for, as a participle: ``decoded``.

    Raises:
        DataError: Instead of an error of a package's that is none of ours.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DataError) or DATASETS.package(name) is None:
            raise
        raise DataError(
            f"{DATASETS.described(name)} cannot be {what}: {type(error).__name__}: "
            f"{in_one_line(error)}"
        ) from error


def data_set(name: str) -> ArrayDataSet | FileDataSet:
    """Return a data set.

    Raises:
        InputError: If it comes from a package that cannot be imported, or is none.
    """
    entry = DATASETS[name]
    if not isinstance(entry, ArrayDataSet | FileDataSet):
        raise InputError(
            f"{DATASETS.described(name)} is none: an entry point must name an object of "
            "skdtune.data.data_set.ArrayDataSet or FileDataSet, "
            f"received {type(entry).__name__}"
        )
    return entry
