"""The studies that a launch follows: their silent workers, and which ones come and go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from skdtune.errors import InputError, StorageAwayError
from skdtune.queue.storage import DATABASE_ERRORS
from skdtune.queue.stored_study import StoredStudy, load_from, names_meant, study_names
from skdtune.queue.trial_queue import TrialQueue

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_LOOK_S = 5.0


def names_of(opened: RDBStorage, names: Sequence[str]) -> list[str]:
    """Return the studies that names of studies and families stand for; all of them without any."""
    if not names:
        return study_names(opened)
    return list(dict.fromkeys(one for name in names for one in names_meant(opened, name)))


class FollowedStudies:
    """Some studies of one storage, while workers train them.

    Args:
        queue: Queue of one of them.
        studies: All of them, in their order.
        names: Names of studies and families that may still come; None if no further ones count.
    """

    def __init__(
        self, queue: TrialQueue, studies: Sequence[StoredStudy], names: Sequence[str] | None
    ) -> None:
        self._queue = queue
        self._names = names
        self._storage = queue.stored.storage
        self._is_one = len(studies) == 1 and names is None
        self._looked_at = time.monotonic()
        #: Always the same list: whoever shows them sees which ones came and went.
        self.studies = list(studies)

    @property
    def lease_s(self) -> float:
        """Seconds of silence after which a worker counts as dead."""
        return self._queue.lease_s

    def label(self, stored: StoredStudy, number: int) -> str:
        """Name a trial for people, who know which study is meant if there is one only."""
        return f"trial {number}" if self._is_one else f"{stored.study.study_name}: trial {number}"

    def reap(self) -> list[str]:
        """Give trials back whose workers fell silent, on whatever machine, and say so."""
        try:
            if self._is_one:
                numbers = self._queue.reap_silent("launch")
                return [
                    f"trial {number} waits again: its worker fell silent" for number in numbers
                ]
            names = {stored.study_id: stored.study.study_name for stored in self.studies}
            return self._queue.reap_silent_among(names, "launch") if names else []
        except StorageAwayError:
            return []

    def look_again(self, *, now: bool = False) -> None:
        """Let go of studies that were deleted, and take up new ones, if it is time to.

        Args:
            now: It is.
        """
        if self._is_one or (time.monotonic() - self._looked_at < _LOOK_S and not now):
            return
        self._looked_at = time.monotonic()
        try:
            self._let_go()
            if self._names is not None:
                self._take_up(self._names)
        except (StorageAwayError, *DATABASE_ERRORS):
            # Later, when it answers again.
            return

    def _let_go(self) -> None:
        works = self._queue.once.work([stored.study_id for stored in self.studies])
        lineages = {study_id: work.lineage for study_id, work in works.items()}
        self.studies[:] = [
            stored for stored in self.studies if lineages.get(stored.study_id) == stored.lineage
        ]

    def _take_up(self, names: Sequence[str]) -> None:
        known = {stored.study.study_name for stored in self.studies}
        existing = set(study_names(self._storage))
        for name in names_of(self._storage, names):
            if name in existing - known:
                try:
                    self.studies.append(load_from(self._storage, name))
                except InputError:
                    # The workers say why nobody can read it.
                    continue
