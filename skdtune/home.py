"""Where skdtune keeps its files on this machine: ``SKDTUNE_HOME`` and what lies below it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from skdtune.errors import InputError

HOME_VARIABLE = "SKDTUNE_HOME"
STORAGE_VARIABLE = "SKDTUNE_STORAGE"
CHECKPOINTS_VARIABLE = "SKDTUNE_CHECKPOINTS"
ARTIFACTS_VARIABLE = "SKDTUNE_ARTIFACTS"
WEIGHTS_VARIABLE = "SKDTUNE_WEIGHTS"

#: Digits of a study's token that are part of the names of its folders.
#: In a folder that belongs to several studies: their tokens, a line each.
STUDIES_FILE = ".studies"
# No token ends like that.
_SHARED = "-and-others"
_TOKEN_LENGTH = 8


@dataclass(frozen=True)
class Home:
    """The folders of one installation; none is created before it is needed."""

    path: Path

    @property
    def data(self) -> Path:
        """Data sets in their own on-disk formats."""
        return self.path / "data"

    @property
    def cache(self) -> Path:
        """Decoded images that the workers of this machine share."""
        return self.path / "cache"

    @property
    def logs(self) -> Path:
        """One log per launched worker, in a folder per study (`study_folder`) and launch."""
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        """What unfinished trials go on from."""
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """Files kept after a trial, as the dashboard serves them."""
        return self.path / "artifacts"

    @property
    def storage_url(self) -> str:
        """The storage used when none is named: an SQLite file."""
        # A URL gives ?, # and % a meaning of their own.
        return f"sqlite:///{quote(str(self.path / 'skdtune.db'))}"


def home(path: str | None = None) -> Home:
    """Return the home named by the argument, by ``SKDTUNE_HOME``, or the platform's usual one."""
    named = path or os.environ.get(HOME_VARIABLE)
    if named:
        return Home(Path(named).expanduser().absolute())
    import platformdirs

    return Home(Path(platformdirs.user_data_dir("skdtune")))


def storage_url(url: str | None = None, *, at: Home | None = None) -> str:
    """Return the storage named by the argument, by ``SKDTUNE_STORAGE``, or the default file."""
    return url or os.environ.get(STORAGE_VARIABLE) or (at or home()).storage_url


def checkpoints_url(url: str | None = None, *, at: Home | None = None) -> str:
    """Return where checkpoints lie: as named, by ``SKDTUNE_CHECKPOINTS``, or in the home."""
    return url or os.environ.get(CHECKPOINTS_VARIABLE) or str((at or home()).checkpoints)


def artifacts_url(url: str | None = None, *, at: Home | None = None) -> str:
    """Return where artifacts lie: as named, by ``SKDTUNE_ARTIFACTS``, or in the home."""
    return url or os.environ.get(ARTIFACTS_VARIABLE) or str((at or home()).artifacts)


def study_folder(study: str, lineage: str) -> str:
    """Name the folder of what belongs to one study: its name for people, its token for certainty.

    Args:
        study: Name of the study, which may be any text in a storage that others write to.
        lineage: Token of the study's creation.
    """
    return f"{quote(study, safe='')[:100]}-{lineage[:_TOKEN_LENGTH]}"


def shared_folder(label: str) -> str:
    """Name the folder of what belongs to several studies; it is none of any one of them.

    Args:
        label: What they are called together.
    """
    return f"{quote(label, safe='')[:100]}{_SHARED}"


def is_shared(folder: str) -> bool:
    """Tell whether a folder belongs to several studies."""
    return folder.endswith(_SHARED)


def is_folder_of(folder: str, lineage: str) -> bool:
    """Tell whether a folder is that of a study, under whatever name it was made.

    Args:
        folder: Name of the folder.
        lineage: Token of the study's creation.
    """
    return bool(lineage) and folder.endswith(f"-{lineage[:_TOKEN_LENGTH]}")


def shown(url: str) -> str:
    """Return a folder or a URL as people are told of it: without a password."""
    return re.sub(r"://[^/]*@", "://***@", url)


def seconds_from_environment(name: str, default: float, *, least: float = 0.0) -> float:
    """Read a duration that a person may set by a variable.

    Raises:
        InputError: If it is no finite number of seconds from the least one on.
    """
    text = os.environ.get(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not least <= seconds < float("inf"):
        raise InputError(f"{name}: expected at least {least:g} seconds, received {text!r}")
    return seconds
