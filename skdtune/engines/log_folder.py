"""The logs of one launch: a folder of its own, of which the newest few are kept."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from skdtune.errors import InputError
from skdtune.home import STUDIES_FILE

#: Launches of a study whose logs are kept, the newest one included.
NUM_KEPT = 10

_LOCK = ".lock"
_NAME = re.compile(r"launch-(\d{3,})")


@contextlib.contextmanager
def own_log_folder(of_study: Path) -> Iterator[Path]:
    """Make the folder of one launch, and remove those of the oldest ones.

    Several launches of a study may run side by side. The logs of one that runs are never removed:
    it holds a lock, which the operating system drops when it ends, however that happens. Folders
    are numbered, because a clock may be set back.

    Args:
        of_study: Where the logs of all launches of the study lie.

    Raises:
        InputError: If nothing can be written there.
    """
    with contextlib.ExitStack() as one_at_a_time:
        try:
            of_study.mkdir(parents=True, exist_ok=True)
            # A folder that has no lock yet must not be taken for one that nobody uses.
            with contextlib.suppress(OSError, NotImplementedError):
                one_at_a_time.enter_context(FileLock(of_study.with_name(f".{of_study.name}.lock")))
            folder = _make(of_study)
        except OSError as error:
            raise InputError(
                f"no logs can be written to {of_study} ({error.strerror}): make that folder "
                "writable, or choose another home with --home"
            ) from None
        lock = FileLock(folder / _LOCK)
        # Where there are no locks, no launch removes the logs of another one.
        with contextlib.suppress(OSError, NotImplementedError):
            lock.acquire(timeout=0)
        _remove_oldest(of_study)
    try:
        yield folder
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            if all(path.name in (_LOCK, STUDIES_FILE) for path in folder.iterdir()):
                shutil.rmtree(folder)


def _remove_oldest(of_study: Path) -> None:
    for older in sorted(_launches(of_study), reverse=True)[NUM_KEPT:]:
        # What cannot be removed costs some space, and no launch.
        with (
            contextlib.suppress(OSError, NotImplementedError),
            FileLock(_folder(of_study, older) / _LOCK, timeout=0),
        ):
            shutil.rmtree(_folder(of_study, older))


def _make(of_study: Path) -> Path:
    while True:
        folder = _folder(of_study, max(_launches(of_study), default=0) + 1)
        # Without locks another launch may take the number at the same moment.
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def _launches(of_study: Path) -> list[int]:
    matches = (_NAME.fullmatch(path.name) for path in of_study.iterdir())
    return [int(match[1]) for match in matches if match]


def _folder(of_study: Path, number: int) -> Path:
    return of_study / f"launch-{number:03d}"
