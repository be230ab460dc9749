"""Which files lie below a folder, each once, however many links lead to it.

A file is known by its real path. Two names of one file on the disk (hard links) are two files, as
two copies are: whether a disk stores equal files once must not change what a study learns from.
How many images are equal, ``duplicates.py`` counts.

Shape legend: N files.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from posixpath import basename, dirname, join

from skdtune.data.data_set import FileListing
from skdtune.errors import DataError


def files_below(folder: Path) -> list[str]:
    """List the files at any depth, relative to a folder, with forward slashes.

    Links are followed, and no folder is entered twice: first go those that need no link, so that a
    link to a folder of its own changes nothing.

    Raises:
        DataError: If a folder cannot be listed, or a link leads nowhere.
    """
    found: list[str] = []
    entered: set[tuple[int, int]] = set()
    plain, linked = [""], list[str]()
    while plain or linked:
        if not plain:
            linked.sort(reverse=True)
        below = (plain or linked).pop()
        for entry in entries_of(folder / below, entered):
            path = join(below, entry.name)
            if entry.is_symlink():
                if leads_to_folder(entry):
                    linked.append(path)
                elif os.path.isfile(entry.path):
                    found.append(path)
            elif entry.is_dir():
                plain.append(path)
            elif entry.is_file():
                found.append(path)
    return found


def entries_of(
    folder: Path, entered: set[tuple[int, int]] | None = None
) -> Iterator[os.DirEntry[str]]:
    """List a folder.

    Args:
        folder: The folder.
        entered: Folders that are not listed again; this one is added.

    Raises:
        DataError: If it cannot be listed.
    """
    try:
        if entered is not None:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in entered:
                return
            entered.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"cannot list the folder {folder} ({error.strerror})") from error


def leads_to_folder(link: os.DirEntry[str]) -> bool:
    """Tell whether a link leads to a folder.

    Raises:
        DataError: If it leads nowhere, and has no leading dot: whatever it led to is missing.
    """
    if not os.path.exists(link.path) and not link.name.startswith("."):
        raise DataError(_leads_nowhere(link.path))
    return os.path.isdir(link.path)


def status_of(path: str | Path) -> os.stat_result:
    """Look at a file, through whatever links.

    Raises:
        DataError: If it is missing, or is none.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        if os.path.islink(path):
            raise DataError(_leads_nowhere(path)) from error
        raise DataError(f"cannot read {path} ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is no file: move it away")
    return status


def _leads_nowhere(path: str | Path) -> str:
    return f"{path} is a link to {os.readlink(path)}, which is not there: mend or remove the link"


def each_file_once(listing: FileListing) -> FileListing:
    """Leave out all names of a file but one: its own, else the first.

    Raises:
        DataError: If a file belongs to two classes, or a link leads nowhere.
    """
    left_out: set[int] = set()
    for first, *others in _names_of_one_file(listing):
        for other in others:
            if listing.labels[first] != listing.labels[other]:
                one, two = (listing.class_names[listing.labels[row]] for row in (first, other))
                raise DataError(
                    f"{listing.folder / listing.paths[first]} and "
                    f"{listing.folder / listing.paths[other]} are one file, which would be of "
                    f"class {one!r} and of class {two!r}: remove the link that is wrong"
                )
        left_out.update(others)
    if not left_out:
        return listing
    kept = [row for row in range(len(listing)) if row not in left_out]
    return replace(
        listing,
        paths=[listing.paths[row] for row in kept],
        labels=[listing.labels[row] for row in kept],
    )


def require_apart(train: FileListing, test: FileListing) -> None:
    """Refuse a file that is learned from and tested on.

    Raises:
        DataError: If there is one; it names both paths.
    """
    parts = (train, test)
    both = FileListing(
        folder=Path("/"),
        paths=[os.path.abspath(part.folder / path) for part in parts for path in part.paths],
        labels=[number for number, part in enumerate(parts) for _ in part.paths],
        class_names=("train", "test"),
    )
    for rows in _names_of_one_file(both):
        if len({both.labels[row] for row in rows}) > 1:
            learned, tested = (
                next(both.paths[row] for row in rows if both.labels[row] == number)
                for number in (0, 1)
            )
            raise DataError(
                f"{tested} and {learned} are one file: an accuracy on images that were learned "
                "from says nothing; remove the link, and test on other images"
            )


def _names_of_one_file(listing: FileListing) -> list[list[int]]:
    """Find the files that several rows lead to: these rows, the one without a link first.

    Folders are listed once more, which tells links from files without a look at each file. Only
    where there are links are all files looked at, and only what two names lead to is followed.
    """
    if not _may_repeat(listing):
        return []
    rows_of: dict[str, list[int]] = {}
    for row in _rows_of_one_inode(listing):
        rows_of.setdefault(os.path.realpath(listing.folder / listing.paths[row]), []).append(row)
    root = os.path.realpath(listing.folder)

    def by_links(row: int) -> tuple[bool, str]:
        path = listing.paths[row]
        return os.path.realpath(join(root, path)) != join(root, path), path

    return [sorted(rows, key=by_links) for rows in rows_of.values() if len(rows) > 1]


def _may_repeat(listing: FileListing) -> bool:
    """Tell whether two paths may lead to one file: there is a link on the way of one."""
    names: dict[str, list[str]] = {}
    for path in listing.paths:
        names.setdefault(dirname(path), []).append(basename(path))
    parents = Counter(os.path.realpath(listing.folder / parent) for parent in names)
    if len(parents) < len(names):
        return True
    for parent, inside in names.items():
        links = {e.name for e in entries_of(listing.folder / parent) if e.is_symlink()}
        if len(set(inside)) < len(inside) or not links.isdisjoint(inside):
            return True
    return False


def _rows_of_one_inode(listing: FileListing) -> list[int]:
    """Return the rows whose file on the disk another row leads to, through a link of any kind."""
    import numpy as np

    inodes_N2 = np.empty((len(listing), 2), dtype=np.uint64)
    for row, path in enumerate(listing.paths):
        status = status_of(f"{listing.folder}/{path}")
        inodes_N2[row] = status.st_dev, status.st_ino
    _, group_N, sizes = np.unique(inodes_N2, axis=0, return_inverse=True, return_counts=True)
    repeated: list[int] = np.flatnonzero(sizes[group_N.reshape(-1)] > 1).tolist()
    return repeated
