"""Fetch one file over the network, with a progress bar, and check that it is the right one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from skdtune.errors import DataError

TIMEOUT_S = 30.0
"""Seconds of silence after which a connection counts as dead."""

_CHUNK_BYTES = 1 << 20


def file_md5(path: Path) -> str:
    """Compute the MD5 of a file, the checksum that the publishers of these data give."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(url: str, destination: Path, md5: str) -> None:
    """Download a file; the bar goes to the standard error stream.

    Args:
        url: address.
        destination: file to write; on an error it may be left incomplete.
        md5: checksum that the file must have.

    Raises:
        DataError: if the network fails or something else than the file arrives; the message is
            the reason only, the caller knows what to do instead.
    """
    # Where a study is only described, nothing is fetched and none of this is wanted.
    import urllib.request
    from http.client import HTTPException

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_interactive:
        console.print(f"downloading {url}", highlight=False, soft_wrap=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=not console.is_interactive)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, bar:
            total = int(response.headers.get("Content-Length") or 0) or None
            task = bar.add_task(destination.name, total=total)
            with destination.open("wb") as file:
                while chunk := response.read(_CHUNK_BYTES):
                    file.write(chunk)
                    bar.advance(task, len(chunk))
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"the download failed ({reason})") from error
    received = file_md5(destination)
    if received != md5:
        raise DataError(f"the download gave another file (its md5 is {received}, not {md5})")
