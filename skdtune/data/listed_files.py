"""A data set of image files that its authors divide by lists: what all of these have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from skdtune.data.archive import Archive, PublishedFile
from skdtune.data.data_set import FileDataSet, FileListing, Glance, PartRequest
from skdtune.data.real_files import entries_of
from skdtune.errors import DataError

Content = TypeVar("Content")


@dataclass(frozen=True, kw_only=True)
class ListedFiles(FileDataSet):
    """A published data set of image files; its archives are unpacked, and fetched, if need be.

    Lists of both parts are read, and no image of the other part is opened.
    """

    sources: tuple[Archive | PublishedFile, ...]
    """What its files come in."""

    def glance(self, request: PartRequest) -> Glance:
        """List the training images, and see whether the files of the test part are there."""
        for source in self.sources:
            if absent := source.missing(request):
                # An archive that nobody can fetch is missing all the same.
                can_fetch = request.download and getattr(source, "is_fetched", True)
                return Glance(missing="" if can_fetch else absent)
            if isinstance(source, Archive) and not (request.root / source.folder).is_dir():
                # It will be unpacked where it is needed.
                return Glance()
        listing = self.list_part(request.root, "train")
        if missing := first_missing(listing):
            raise DataError(
                f"{missing} is missing, which the lists name: move {listing.folder} away and run "
                "again to have it unpacked again"
            )
        return Glance(training_files=listing, missing_test=self.missing_test(request.root))

    def list_files(self, request: PartRequest) -> FileListing:
        """List the images of a part."""
        for source in self.sources:
            source.provided(request)
        return self.list_part(request.root, request.split)

    @abstractmethod
    def list_part(self, root: Path, split: str) -> FileListing:
        """List a part of what lies below a folder.

        Raises:
            DataError: If a list is missing or makes no sense.
        """

    def missing_test(self, root: Path) -> str:
        """Say which file of the test part is not there; nothing if all are."""
        missing = first_missing(self.list_part(root, "test"))
        return f"there is no file {missing}" if missing else ""


def first_missing(listing: FileListing) -> Path | None:
    """Return the first file that a list names and that is not there."""
    paths = (listing.folder / path for path in listing.paths)
    return next((path for path in paths if not path.is_file()), None)


def images_in(folder: Path, suffixes: tuple[str, ...], fewest: int = 1) -> list[str]:
    """Name the images of a class in its folder, in any order.

    Args:
        folder: The folder.
        suffixes: What their names end with, in lower case.
        fewest: So many must be there.

    Raises:
        DataError: If there are fewer.
    """
    names = [
        entry.name
        for entry in entries_of(folder)
        if entry.name.lower().endswith(suffixes) and not entry.name.startswith(".")
    ]
    if len(names) < fewest:
        raise DataError(
            f"{folder} holds {len(names)} images ({', '.join(suffixes)}) and needs at least "
            f"{fewest}: unpack it again, or take the class out"
        )
    return names


def read_list(path: Path, read: Callable[[Path], Content]) -> Content:
    """Read a list that came with the images.

    Args:
        path: The file.
        read: What reads it; whatever it raises means that the list is damaged.

    Raises:
        DataError: If it is missing or damaged.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is missing: move {path.parent} away and run again to have it unpacked again"
        )
    try:
        return read(path)
    # A damaged file makes a reader raise nearly anything.
    except Exception as error:
        raise DataError(f"{path} cannot be read ({error}): unpack it again") from error


def read_rows(path: Path) -> list[list[str]]:
    """Read a list of words, a row each line.

    Raises:
        DataError: If it is missing or is no text.
    """
    text = read_list(path, lambda p: p.read_text(encoding="utf-8"))
    return [line.split() for line in text.splitlines() if line.strip()]


def read_mat(path: Path) -> dict[str, Any]:
    """Read a file of MATLAB, which is data and no program.

    Raises:
        DataError: If it is missing or damaged.
    """
    # SciPy takes a while to import, and a start that finds everything in the cache reads no list.
    from scipy.io import loadmat  # type: ignore[import-untyped]

    content: dict[str, Any] = read_list(path, lambda p: loadmat(p, squeeze_me=True))
    return content
