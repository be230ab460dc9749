"""Read what the report shows of studies."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from skdtune.analysis.study_record import StudyRecord, read_study
from skdtune.queue.foreign_trials import without_foreign
from skdtune.queue.stored_study import StoredStudy, load_study
from skdtune.views.report_page.importance import importance_of


def read_studies(names: Sequence[str], *, storage: str | None = None) -> tuple[StudyRecord, ...]:
    """Read studies by name, in the order given; a name that comes twice is read once.

    Args:
        names: Names of the studies.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Raises:
        StudyError: If there is no such study.
        StorageError: If the storage cannot be used.
    """
    records = []
    for name in dict.fromkeys(names):
        with contextlib.closing(load_study(name, storage=storage)) as stored:
            records.append(read_with_importance(stored))
    return tuple(records)


def read_with_importance(stored: StoredStudy) -> StudyRecord:
    """Read an opened study with all its trials, and which parameters set the best ones apart."""
    study = read_study(stored)
    if not study.picks_best:
        return study
    searched = without_foreign(stored.study, stored.storage, stored.spec.kind)
    importance, note = importance_of(searched, stored.spec)
    return dataclasses.replace(study, importance=importance, importance_note=note)
