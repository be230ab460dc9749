"""The files of a study beside the storage: networks kept as artifacts, checkpoints, logs.

They are known by names that no other study has: artifacts by their own, folders by the token of
the study's creation.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skdtune.home import STUDIES_FILE, is_folder_of, is_shared, shown
from skdtune.queue.deletion import DeletedStudy

# As skdtune and Optuna name them; what others wrote must not lead out of the store.
_ARTIFACT_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")


@dataclass
class Removed:
    """What became of the files of a study."""

    num_artifacts: int = 0
    num_checkpoint_folders: int = 0
    num_log_folders: int = 0
    problems: list[str] = field(default_factory=list)
    """What could not be removed, and why, one line each."""


def remove_files(study: DeletedStudy, *, artifacts: str, checkpoints: str, logs: Path) -> Removed:
    """Remove the files of a study that was deleted; those that are gone are no problem.

    Args:
        study: What is left of it.
        artifacts: Folder or fsspec URL of the artifacts.
        checkpoints: Folder or fsspec URL of the checkpoints.
        logs: Folder of the logs on this machine.
    """
    removed = Removed()

    def persist(where: str, remove: Callable[[], int]) -> int:
        try:
            return remove()
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            why = " ".join(reason.split())
            removed.problems.append(f"{shown(where)} cannot be cleared: {why}")
            return 0

    def folders(url: str) -> int:
        return sum(_remove_folder(*found) for found in _folders(url, study.lineage))

    if study.artifacts:
        ids = [one for one in study.artifacts if _ARTIFACT_ID.fullmatch(one)]
        removed.num_artifacts = persist(artifacts, lambda: _remove_named(artifacts, ids))
    removed.num_checkpoint_folders = persist(checkpoints, lambda: folders(checkpoints))
    removed.num_log_folders = persist(str(logs), lambda: folders(str(logs)))
    removed.num_log_folders += persist(str(logs), lambda: _remove_shared(logs, study.lineage))
    return removed


def _remove_named(url: str, names: list[str]) -> int:
    number = 0
    if "://" not in url:
        for name in names:
            path = Path(url).expanduser() / name
            number += path.exists()
            path.unlink(missing_ok=True)
        return number
    files, root = _remote(url)
    for name in names:
        try:
            files.rm_file(f"{root}/{name}")
            number += 1
        except FileNotFoundError:
            continue
    return number


def _folders(url: str, lineage: str) -> list[tuple[Any, str]]:
    """List the folders of a study, each with the file system it lies on, None for this one."""
    if "://" not in url:
        root = Path(url).expanduser()
        found = root.iterdir() if root.is_dir() else iter(())
        return [(None, str(path)) for path in found if is_folder_of(path.name, lineage)]
    from skdtune.training.files import listed

    files, folder = _remote(url)
    paths = (path.rstrip("/") for path in listed(files, folder))
    return [(files, path) for path in paths if is_folder_of(path.rpartition("/")[2], lineage)]


def _remove_shared(logs: Path, lineage: str) -> int:
    """Remove the logs of launches of several studies whose last one this was."""
    number = 0
    launches = logs.iterdir() if logs.is_dir() else iter(())
    for listed in [
        one for path in launches if is_shared(path.name) for one in path.glob(f"*/{STUDIES_FILE}")
    ]:
        tokens = listed.read_text().split()
        if lineage not in tokens:
            continue
        if others := [token for token in tokens if token != lineage]:
            listed.write_text("".join(f"{token}\n" for token in others))
            continue
        shutil.rmtree(listed.parent)
        number += 1
        with contextlib.suppress(OSError):
            # There may be logs of other launches.
            listed.parent.parent.rmdir()
    return number


def _remove_folder(files: Any, path: str) -> int:
    if files is None:
        shutil.rmtree(path)
    else:
        files.rm(path, recursive=True)
    return 1


def _remote(url: str) -> tuple[Any, str]:
    # Only where it is needed: a machine that does not train may lack fsspec.
    from skdtune.training.files import open_folder

    opened: tuple[Any, str] = open_folder(url)
    return opened
