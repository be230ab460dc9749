"""The studies that a name on the command line stands for, and one of them opened for writing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from skdtune.cli.application import Application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skdtune.queue.stored_study import StoredStudy


def names_for(application: Application, study: str) -> list[str]:
    """Return the study of that name, or all studies of the family of that name."""
    from skdtune.queue.stored_study import expand_family

    return expand_family(study, storage=application.url)


@contextlib.contextmanager
def opened_for_writing(application: Application, study: str) -> Iterator[StoredStudy]:
    """Open a study to change it, refused where the storage may only be read."""
    from skdtune.queue.storage import require_writable
    from skdtune.queue.stored_study import load_study

    with contextlib.closing(load_study(study, storage=application.url)) as stored:
        require_writable(stored.storage)
        yield stored
