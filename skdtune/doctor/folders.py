"""Whether there is room on the disks, and whether checkpoints and artifacts can be kept."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from skdtune.doctor.finding import Finding, Installation, Level

_GIB = 2**30
#: Less than this is worth a word; a network of hundreds of megabytes is kept three times.
_LITTLE = 5 * _GIB
_NOTHING = _GIB // 4


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at the home, the checkpoints and the artifacts."""
    from skdtune.home import (
        ARTIFACTS_VARIABLE,
        CHECKPOINTS_VARIABLE,
        HOME_VARIABLE,
        artifacts_url,
        checkpoints_url,
    )

    home = installation.home
    yield _place("home", str(home.path), HOME_VARIABLE)
    yield _place("checkpoints", checkpoints_url(at=home), CHECKPOINTS_VARIABLE)
    yield _place("artifacts", artifacts_url(at=home), ARTIFACTS_VARIABLE)


def _place(about: str, url: str, variable: str) -> Finding:
    """Write a small file there, read it back and take it away."""
    from skdtune.home import shown

    try:
        from skdtune.training.files import absolute, open_folder, reason_of, write_file
    except ImportError:
        says = f"{shown(url)} was not looked at: it is for workers, and none runs here"
        return Finding(about, "note", says)
    url = absolute(url)
    remedy = f"name another one with {variable}"
    local = None if "://" in url else Path(url)
    # A folder that is not there yet is made when it is needed: looking makes none.
    where = local and next(folder for folder in (local, *local.parents) if folder.exists())
    name = f".skdtune-doctor-{secrets.token_hex(8)}"
    try:
        files, folder = open_folder(url if where is None else str(where))
        write_file(files, folder, name, b"skdtune")
        try:
            if files.cat_file(f"{folder}/{name}") != b"skdtune":
                raise OSError("it does not give back what it took")
        finally:
            files.rm_file(f"{folder}/{name}")
    except Exception as error:
        says = f"{shown(url)} cannot be used: {reason_of(error)}"
        return Finding(about, "wrong", says, remedy)
    if where is None:
        return Finding(about, "ok", f"{shown(url)} can be written")
    free = shutil.disk_usage(where).free
    says = f"{local}{'' if where == local else ' (will be made)'}: {free / _GIB:.1f} GiB free"
    if free >= _LITTLE:
        return Finding(about, "ok", says)
    level: Level = "wrong" if free < _NOTHING else "note"
    return Finding(about, level, says, f"make room, or {remedy}")
