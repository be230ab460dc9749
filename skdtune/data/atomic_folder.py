"""Fill a folder so that nobody ever meets it half filled, and only one process fills it.

The lock belongs to the operating system, which drops it when its owner dies, however it dies.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from skdtune.errors import DataError

PATIENCE_S = 5.0
"""Seconds to wait for another process in silence, before saying so once."""


@contextmanager
def only_builder(target: Path, what: str) -> Iterator[None]:
    """Hold the right to fill one folder; wait while another process holds it.

    Args:
        target: the folder to fill; its parent is made if it is missing.
        what: what is being prepared, for the message to someone who waits.

    Raises:
        DataError: if the parent folder cannot be written.
    """
    lock = FileLock(target.parent / f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PATIENCE_S)
        except Timeout:
            print(f"waiting for another process that prepares {what}", file=sys.stderr)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise DataError(
            f"cannot write {what} to {target.parent} ({_reason(error)}): "
            "make that folder writable or choose another one"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def filled_folder(target: Path) -> Iterator[Path]:
    """Fill a temporary folder, which takes its final name only when the block ends well.

    Call it while holding :func:`only_builder`: what an earlier, killed builder left behind is
    removed first, and an existing folder of that name is replaced.

    Args:
        target: the final name.

    Yields:
        An empty folder beside it.

    Raises:
        DataError: if the disk is full or cannot be written; nothing is left behind.
    """
    for left_over in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(left_over, ignore_errors=True)
    filling = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        # Not tempfile.mkdtemp: its folders are closed to the other users who share a cache.
        filling.mkdir()
        yield filling
        # The files reach the disk before the name that vouches for them.
        for path in filling.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if target.exists():
            aside = target.parent / f".{target.name}.old.tmp"
            target.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        filling.rename(target)
    except OSError as error:
        raise DataError(
            f"cannot write {target} ({_reason(error)}): "
            "free space there, make it writable or choose another folder"
        ) from error
    finally:
        shutil.rmtree(filling, ignore_errors=True)


def _reason(error: Exception) -> str:
    """Say in a few words what the system objected to."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
