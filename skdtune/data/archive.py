"""Files and archives as they are published: where they belong, put there by hand or fetched."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from skdtune.data.atomic_folder import filled_folder, only_builder
from skdtune.data.data_set import PartRequest
from skdtune.data.download import fetch, file_md5
from skdtune.errors import DataError, in_one_line


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file that is read as it is published."""

    url: str
    """Its address."""

    filename: str
    """Its path below ``data.root``."""

    md5: str | None
    """Its checksum; None if its publishers give none, and nobody else whom one would believe."""

    def provided(self, request: PartRequest) -> Path:
        """Return its path; a file that is missing is fetched, if that is allowed.

        Raises:
            DataError: If it is missing and cannot be fetched.
        """
        path = request.root / self.filename
        if path.is_file():
            return path
        by_hand = f"get {self.url}, put it there and run again, or set data.root"
        with only_builder(path, f"the data of {request.name}"):
            if path.is_file():
                return path
            missing = f"{request.name} is missing: there is no file {path}"
            if not request.download:
                raise DataError(f"{missing}: {by_hand}, or set data.download to true")
            try:
                fetch(self.url, path, self.md5)
            except DataError as error:
                raise DataError(f"{missing}, and {error}: {by_hand}") from error
        return path

    def missing(self, request: PartRequest) -> str:
        """Say that the file is not there; else nothing."""
        path = request.root / self.filename
        return "" if path.is_file() else f"there is no file {path}"

    def check(self, path: Path) -> None:
        """Refuse a file that is not the published one, before it is believed.

        Raises:
            DataError: If its checksum is another one, or it cannot be read.
        """
        try:
            wrong = self.md5 and file_md5(path) != self.md5
            reason = f"is damaged or incomplete (md5 is not {self.md5})" if wrong else ""
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
        if reason:
            raise DataError(f"{path} {reason}: move it away and get {self.url} again")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A tar or zip archive as its authors publish it."""

    url: str
    """Its address."""

    filename: str
    """Its name where a person puts it below ``data.root``."""

    md5: str | None
    """Its checksum; None if its publishers give none, and nobody else whom one would believe."""

    folder: str
    """Folder below ``data.root`` for what it holds, or for what the one folder in it holds."""

    is_fetched: bool = True
    """Its address leads to it; else to a page, and a person has to get it."""

    def provided(self, request: PartRequest) -> Path:
        """Return the folder, see :meth:`unpacked`."""
        return self.unpacked(request)

    def unpacked(self, request: PartRequest) -> Path:
        """Return the folder; one that is missing is unpacked, and fetched if that is allowed.

        However many processes ask at once, one provides it and the others wait.

        Raises:
            DataError: If it is missing and cannot be fetched, or the archive is damaged.
        """
        folder = request.root / self.folder
        if not folder.is_dir():
            with only_builder(folder, f"the data of {request.name}"):
                if not folder.is_dir():
                    self._provide(request)
        return folder

    def missing(self, request: PartRequest) -> str:
        """Say what is missing, where neither the folder nor the archive is there; else nothing."""
        if (request.root / self.folder).is_dir() or (request.root / self.filename).exists():
            return ""
        return f"there is no folder {self.folder} and no file {self.filename} in {request.root}"

    def require(self, path: Path) -> None:
        """Refuse a folder that lacks a file, without a look into it.

        Raises:
            DataError: If there is no such file.
        """
        if not path.is_file():
            raise DataError(
                f"{path} is missing: move the folder {path.parent} away and run again to have it "
                f"fetched, or copy it again from {self.url}"
            )

    def check(self, path: Path, md5: str) -> None:
        """Refuse an unpacked file that is not the published one, before it is believed.

        Raises:
            DataError: If its checksum is another one, or it cannot be read.
        """
        try:
            equal = file_md5(path) == md5
            wrong = None if equal else f"is damaged or incomplete (md5 is not {md5})"
        except OSError as error:
            wrong = f"cannot be read ({error.strerror})"
        if wrong:
            raise DataError(
                f"{path} {wrong}: move the folder {path.parent} away and run again to have it "
                f"fetched, or copy it again from {self.url}"
            )

    def _provide(self, request: PartRequest) -> None:
        archive = request.root / self.filename
        by_hand = f"get {self.url}, put it into {request.root} and run again, or set data.root"
        missing = (
            f"{request.name} is missing: no folder {self.folder} and no file {self.filename} in "
            f"{request.root}"
        )
        if archive.exists():
            if self.md5 and file_md5(archive) != self.md5:
                raise DataError(
                    f"{archive} is damaged or incomplete (its md5 is not {self.md5}): {by_hand}"
                )
            self._unpack(archive, request.root)
        elif not self.is_fetched:
            raise DataError(f"{missing}: {by_hand}")
        elif not request.download:
            raise DataError(f"{missing}: {by_hand}, or set data.download to true")
        else:
            try:
                # Outside of what is thrown away if this fails: a download goes on where it was.
                fetch(self.url, archive, self.md5)
                self._unpack(archive, request.root)
            except DataError as error:
                raise DataError(f"{missing}, and {error}: {by_hand}") from error
            archive.unlink()

    def _unpack(self, archive: Path, root: Path) -> None:
        """Put the folder in place as a whole."""
        with filled_folder(root / self.folder) as filling:
            unpacked = filling / "unpacked"
            try:
                _extract(archive, unpacked)
            except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
                raise DataError(
                    f"{archive} is damaged, incomplete or no archive ({in_one_line(error)}): get "
                    f"{self.url} again"
                ) from error
            held = list(unpacked.iterdir())
            folders = [path for path in held if path.is_dir()]
            # A folder of the right name may have a file beside it, which is left out.
            is_wanted = len(folders) == 1 and folders[0].name == Path(self.folder).name
            is_one_folder = len(folders) == len(held) == 1
            for path in list(folders[0].iterdir()) if is_wanted or is_one_folder else held:
                path.rename(filling / path.name)
            shutil.rmtree(unpacked)


def _extract(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive; no name in it leads out of the folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            # The library takes what leads out of such names.
            zipped.extractall(folder)
    else:
        with tarfile.open(archive) as tar:
            # An attribute, not an argument: releases of Python without filters ignore it.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(folder)
