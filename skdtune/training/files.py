"""Files that are written whole or not at all, in a folder or on any file system of fsspec."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from skdtune.errors import SkdtuneError

_PAUSES_S = (0.2, 1.0, 3.0)


def absolute(url: str) -> str:
    """Return a folder as it is found from everywhere; a URL stays as it is."""
    return url if "://" in url else str(Path(url).expanduser().absolute())


def open_folder(url: str) -> tuple[Any, str]:
    """Return a file system, and the folder on it that a URL names."""
    if "://" in url:
        files, root = fsspec.core.url_to_fs(url)
    else:
        # Not by fsspec's rules for URLs, to which `::` in a name means something else.
        files, root = LocalFileSystem(), url
    # Listings are remembered by some file systems; others write here too.
    files.invalidate_cache()
    return files, root.rstrip("/")


def listed(files: Any, folder: str) -> list[str]:
    """List the paths in a folder; none if it is not there."""
    try:
        return [str(path) for path in files.ls(folder, detail=False)]
    except FileNotFoundError:
        return []


def persistently(call: Callable[[], Any]) -> Any:
    """Read from a file system that may be away for a moment: a trial so far depends on it."""
    for pause_s in _PAUSES_S:
        try:
            return call()
        except (FileNotFoundError, NotADirectoryError, PermissionError, MemoryError):
            raise
        except Exception:
            time.sleep(pause_s)
    return call()


def make_folder(files: Any, folder: str) -> None:
    """Make a folder, and those above it, unless it is there."""
    try:
        files.makedirs(folder, exist_ok=True)
    except FileNotFoundError:
        # Whoever deleted the last file in a folder above took that away just now.
        files.makedirs(folder, exist_ok=True)


def write_file(files: Any, folder: str, name: str, content: bytes) -> None:
    """Write a file that nobody ever meets half written, wherever it lies."""
    if not isinstance(files, LocalFileSystem):
        # Object stores show an object only when it is whole; the checksum covers the rest.
        files.pipe_file(f"{folder}/{name}", content)
        return
    # A local one is there in full or not at all, also after a power failure.
    path = Path(folder) / name
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason_of(error: Exception) -> str:
    """Say in one line why, without repeating the path."""
    if isinstance(error, SkdtuneError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
