"""Fetch one file over the network, with a progress bar, and check that it is the right one.

What has arrived stays beside the file, as ``<name>.part`` with ``<name>.part.json``, which says of
which version of the file it is: the same command again goes on from there, after a broken
connection, Ctrl-C or a kill. A server that has another version by now, or sends whole files only,
is asked for the whole file.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skdtune.data.kept_json import read_json, write_json
from skdtune.errors import DataError

if TYPE_CHECKING:
    from http.client import HTTPResponse

TIMEOUT_S = 30.0
"""Seconds of silence after which a connection counts as dead."""

_CHUNK_BYTES = 1 << 20
_TRIES_IN_VAIN = 3
"""So many connections in a row that bring nothing end a download."""


def file_md5(path: Path) -> str:
    """Compute the MD5 of a file, the checksum that the publishers of these data give."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(url: str, destination: Path, md5: str | None) -> None:
    """Download a file, or what is missing of it; the bar goes to the standard error stream.

    Args:
        url: Address.
        destination: File to write, which has its name only when it is whole and right.
        md5: Checksum that the file must have; None if there is none to compare with.

    Raises:
        DataError: If the network fails or something else than the file arrives; the message is
            the reason only, the caller knows what to do instead.
    """
    # Where a study is only described, nothing is fetched and none of this is wanted.
    from http.client import HTTPException

    part = _Part(destination)
    in_vain = 0
    with _bar(url, destination.name) as progress:
        while True:
            before = part.size
            try:
                if part.receive(url, progress):
                    break
                reason: object = "the connection ended before the file did"
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                if getattr(error, "errno", None) is not None and not _is_of_network(error):
                    raise DataError(f"{part.path} cannot be written ({reason})") from error
            in_vain = 0 if part.size > before else in_vain + 1
            if in_vain >= _TRIES_IN_VAIN:
                kept = f"; {part.size:,} bytes of it are kept" if part.size else ""
                raise DataError(f"the download failed ({reason}){kept}")
    if md5 and (received := file_md5(part.path)) != md5:
        part.remove()
        raise DataError(f"the download gave another file (its md5 is {received}, not {md5})")
    part.path.replace(destination)
    part.remove()


@dataclass(frozen=True)
class _Version:
    """What tells whether a server still has the file that a part is of."""

    url: str
    validator: str
    """Its entity tag, or the time of its last change."""


class _Part:
    """What has arrived of a file."""

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(destination.name + ".part")
        self._about = destination.with_name(destination.name + ".part.json")

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def receive(self, url: str, progress: Any) -> bool:
        """Ask for what is missing and write it down; tell whether the file is complete."""
        import urllib.request
        from urllib.error import HTTPError

        headers, known = {}, read_json(self._about)
        is_known = isinstance(known, dict) and known.get("url") == url and known.get("validator")
        if is_known and self.size:
            # Whole, if it is another version by now.
            headers = {"Range": f"bytes={self.size}-", "If-Range": str(known["validator"])}
        # Not `urlopen`: it keeps to the proxy that was set when it was first used.
        opener = urllib.request.build_opener()
        try:
            response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
        except HTTPError as error:
            if error.code != 416:
                raise
            # Nothing is left to send; whether it is the right file, its checksum tells.
            return True
        with response:
            goes_on = response.status == 206
            start = self.size if goes_on else 0
            total = _total(response, start)
            free = shutil.disk_usage(self.path.parent).free
            if total is not None and total - start > free:
                raise DataError(
                    f"{total - start:,} bytes are missing of it, and {self.path.parent} has "
                    f"{free:,} free"
                )
            progress(start, total)
            with self.path.open("ab" if goes_on else "wb") as file:
                if not goes_on:
                    write_json(self._about, asdict(_Version(url, _validator(response))))
                while chunk := response.read(_CHUNK_BYTES):
                    file.write(chunk)
                    start += len(chunk)
                    progress(start, total)
        return total is None or start >= total

    def remove(self) -> None:
        """Forget all of it."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)


def _total(response: HTTPResponse, start: int) -> int | None:
    """Return the size of the whole file; None if the server does not say."""
    length = response.headers.get("Content-Length")
    return start + int(length) if length and length.isdigit() else None


def _validator(response: HTTPResponse) -> str:
    """Return what a range can be made conditional on: a strong entity tag, else a date."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _is_of_network(error: BaseException) -> bool:
    """Tell a broken connection from a full disk."""
    import ssl
    import urllib.error

    of_network = (ConnectionError, TimeoutError, ssl.SSLError, urllib.error.URLError)
    return isinstance(error, of_network)


@contextmanager
def _bar(url: str, name: str) -> Iterator[Any]:
    """Draw a bar; yield what moves it to so many bytes of how many."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_interactive:
        console.print(f"downloading {url}", highlight=False, soft_wrap=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=not console.is_interactive)
    with bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
