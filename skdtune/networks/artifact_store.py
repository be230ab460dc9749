"""Artifacts on any file system of fsspec, for the dashboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from skdtune.errors import InputError


class RemoteArtifactStore:
    """An artifact store, as Optuna calls one, at an fsspec URL.

    The dashboard itself takes care that an artifact's name has no slash in it.
    """

    def __init__(self, url: str) -> None:
        """Open the file system.

        Raises:
            InputError: If fsspec, or its package for such a URL, is not there.
        """
        try:
            import fsspec

            self._files: Any
            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InputError(f"SKDTUNE_ARTIFACTS cannot be reached: {error}") from None
        self._root = root.rstrip("/")

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact for reading."""
        with _not_found():
            reader: BinaryIO = self._files.open(f"{self._root}/{artifact_id}", "rb")
        return reader

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write an artifact."""
        self._files.makedirs(self._root, exist_ok=True)
        with self._files.open(f"{self._root}/{artifact_id}", "wb") as file:
            shutil.copyfileobj(content_body, file)

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact."""
        with _not_found():
            self._files.rm_file(f"{self._root}/{artifact_id}")


@contextmanager
def _not_found() -> Iterator[None]:
    from optuna.artifacts.exceptions import ArtifactNotFound

    try:
        yield
    except FileNotFoundError:
        raise ArtifactNotFound("not found") from None
