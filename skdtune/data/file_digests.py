"""The digests of image files, taken once on a machine and found again by size and times.

A *manifest* in the cache holds for every file of a folder its size, its times of modification and
of change, and the SHA-256 of its content. A file of which all four are as they were is not read
again: moving, replacing or rewriting a file changes at least one of them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skdtune.data.atomic_folder import only_builder
from skdtune.data.kept_json import read_json, write_json
from skdtune.data.many_files import with_each_file
from skdtune.data.real_files import status_of
from skdtune.errors import DataError

#: Hexadecimal digits of a SHA-256 that are kept of each file.
_DIGITS = 32

#: Size, time of modification and time of change, in bytes and nanoseconds.
Stat = list[int]
#: These three, and the digest.
Entry = list[Any]


def file_digests(folder: Path, paths: Sequence[str], manifest: Path) -> list[str]:
    """Return the digest of each file, reading only those that are new or changed.

    However many processes ask at once, one reads the files and the others wait for it.

    Args:
        folder: Where the paths start.
        paths: The files.
        manifest: Where their digests are kept; one that cannot be written is done without.

    Raises:
        DataError: If a file cannot be read, or was changed without a trace that decoded images
            are found again by.
    """
    stats = [_stat(f"{folder}/{path}") for path in paths]
    known = _read(manifest)
    if not _unknown(known, paths, stats):
        return [known[path][-1] for path in paths]
    with contextlib.ExitStack() as lock:
        may_write = True
        try:
            lock.enter_context(only_builder(manifest, f"the digests of the files in {folder}"))
        except DataError:
            # Decoded images may be there all the same, on a file system that is read-only.
            may_write = False
        known = _read(manifest)
        fresh = _hashed(folder, paths, stats, _unknown(known, paths, stats))
        for path, entry in fresh.items():
            _refuse_hidden_change(f"{folder}/{path}", known.get(path), entry)
        known |= fresh
        if may_write:
            write_json(manifest, known)
    return [known[path][-1] for path in paths]


def _read(manifest: Path) -> dict[str, Entry]:
    stored = read_json(manifest)
    entries = stored.items() if isinstance(stored, dict) else ()
    return {path: e for path, e in entries if isinstance(e, list) and len(e) == 4}


def _unknown(known: dict[str, Entry], paths: Sequence[str], stats: Sequence[Stat]) -> list[int]:
    """List the rows of the files whose digests are not known, or not of what is there now."""
    rows = range(len(paths))
    return [row for row in rows if known.get(paths[row], [])[:-1] != stats[row]]


def _hashed(
    folder: Path, paths: Sequence[str], stats: Sequence[Stat], rows: Sequence[int]
) -> dict[str, Entry]:
    fresh: dict[str, Entry] = {}

    def read(index: int) -> None:
        row = rows[index]
        path = folder / paths[row]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path} ({error.strerror})") from error
        fresh[paths[row]] = [*stats[row], hashlib.sha256(content).hexdigest()[:_DIGITS]]

    with_each_file("reading", folder, len(rows), read)
    return fresh


def _refuse_hidden_change(path: str, old: Entry | None, new: Entry) -> None:
    """Refuse a new content under the old size and time, by which decoded images are found.

    Else what is trained on would be the old images, and what is noted the new ones.
    """
    if old is not None and old[:2] == new[:2] and old[-1] != new[-1]:
        raise DataError(
            f"{path} has another content than before with the same size and time of "
            "modification: touch it, so that it is decoded again"
        )


def _stat(path: str) -> Stat:
    status = status_of(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
