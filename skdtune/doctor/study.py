"""Whether a worker of this machine could train a study's trials: packages, data, state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from skdtune.doctor.finding import Finding, Installation

if TYPE_CHECKING:
    from skdtune.queue.stored_study import StoredStudy


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at the study that is named, or at all of a family."""
    from skdtune.errors import SkdtuneError
    from skdtune.queue.stored_study import expand_family, load_study

    if installation.study is None:
        return
    url = installation.storage_url
    for name in expand_family(installation.study, storage=url):
        try:
            with closing(load_study(name, storage=url)) as stored:
                yield from _examine(stored, installation)
        except SkdtuneError as error:
            yield Finding(about="study", level="wrong", says=str(error))


def _examine(stored: StoredStudy, installation: Installation) -> Iterator[Finding]:
    from skdtune.queue.pausing import paused_reason
    from skdtune.queue.stored_study import require_packages

    name = stored.spec.name
    require_packages(stored)
    if reason := paused_reason(stored.engine, stored.study_id):
        remedy = f"mend it, then `skdtune resume {name}`"
        yield Finding(
            about="study", level="note", says=f"{name} is paused: {reason}", remedy=remedy
        )
