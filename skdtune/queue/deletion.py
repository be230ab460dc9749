"""Delete studies: all rows in one transaction, and a list of the files that are still to go.

The list stays in the storage until the files are gone: whatever ends a deletion in between, the
next one finishes it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from skdtune.describe.kinds.catalogue import settings_of
from skdtune.errors import StudyError
from skdtune.queue import schema
from skdtune.queue.final_evaluation import evaluations_of
from skdtune.queue.idle import lock_idle, reap_silent
from skdtune.queue.kept_network import ARTIFACT_PREFIX
from skdtune.queue.stored_study import RawStudy, raw_studies, unknown_study

#: Key of no study and no trial: under it the table of events lists what is left of the deleted.
_NOBODY = 0
_DELETED = "deleted"
_CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class DoomedStudy:
    """A study that is to be deleted, and what goes with it."""

    study_id: int
    name: str
    lineage: str
    """Token of its creation; empty where nobody wrote one down."""

    source: str | None
    """The study that it is a final evaluation of, where that is why it goes."""

    family: str
    counts: dict[TrialState, int]
    """Trials by state, those that there are."""

    num_artifacts: int
    """Kept networks, and other files that hang on its trials."""

    @property
    def num_trials(self) -> int:
        """Trials in all."""
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True)
class DeletedStudy:
    """What is left on disks of a study whose rows are gone."""

    name: str
    lineage: str
    num_trials: int
    artifacts: list[str]
    """Names of its files in the artifact store."""

    asked_as: list[str]
    """Names under which a person may ask for it again."""


def doomed_by(storage: RDBStorage, names: Collection[str]) -> list[DoomedStudy]:
    """List the studies that go when some are deleted: these, and their final evaluations.

    Args:
        storage: The storage.
        names: Names of studies of skdtune; their specs need not be readable.

    Raises:
        StudyError: If there is no such study.
    """
    with storage.engine.connect() as connection:
        every = raw_studies(connection)
    for name in names:
        if all(one.name != name for one in every):
            raise StudyError(unknown_study(storage, name))
    with storage.engine.connect() as connection:
        own = schema.own_studies
        rows = connection.execute(sa.select(own.c.study_id, own.c.lineage))
        lineages = {study_id: lineage for study_id, lineage in rows}
        chosen = [one for one in every if one.name in names]
        tokens = {lineages[one.study_id]: one.name for one in chosen if one.study_id in lineages}
        others = [one for one in evaluations_of(every, tokens) if one not in chosen]
        sources = {one.study_id: tokens[settings_of(one.raw)["lineage"]] for one in others}
        return [
            DoomedStudy(
                study_id=one.study_id,
                name=one.name,
                lineage=lineages.get(one.study_id, ""),
                source=sources.get(one.study_id),
                family=_family_of(one),
                counts=_counts(connection, one.study_id),
                num_artifacts=len(_artifacts(connection, one.study_id)),
            )
            for one in [*chosen, *others]
        ]


def delete_studies(storage: RDBStorage, doomed: Sequence[DoomedStudy]) -> None:
    """Delete all rows of some studies, or none; their files are listed by `deleted_studies`.

    Raises:
        StudyError: If workers train one of them, or one is not there any more; nothing was
            changed.
    """
    ids = [one.study_id for one in doomed]
    reap_silent(storage.engine, ids)
    with storage.engine.begin() as connection:
        lock_idle(connection, ids)
        _require_same(connection, doomed)
        artifacts = {one: _artifacts(connection, one) for one in ids}
        for study_id in ids:
            _delete_rows(connection, study_id)
        for one in doomed:
            # A copy of a study names the same files.
            named = _still_named(connection, artifacts[one.study_id])
            left = DeletedStudy(
                name=one.name,
                lineage=one.lineage,
                num_trials=one.num_trials,
                artifacts=[file for file in artifacts[one.study_id] if file not in named],
                asked_as=[name for name in (one.name, one.source, one.family) if name],
            )
            _note_left(connection, left)


def require_idle(storage: RDBStorage, doomed: Sequence[DoomedStudy]) -> None:
    """Refuse studies that workers train, before a person is asked anything.

    Raises:
        StudyError: If workers train one of them.
    """
    ids = [one.study_id for one in doomed]
    reap_silent(storage.engine, ids)
    with storage.engine.begin() as connection:
        lock_idle(connection, ids)


def deleted_studies(engine: sa.Engine, names: Collection[str]) -> list[DeletedStudy]:
    """List the studies that were deleted and whose files may still be there.

    Args:
        engine: The storage's engine.
        names: Their names, or what else a person called them by.
    """
    with engine.connect() as connection:
        return [left for _, left in _noted(connection) if not set(names).isdisjoint(left.asked_as)]


def forget_deleted(engine: sa.Engine, deleted: DeletedStudy) -> None:
    """Take a study off the list, after its files are gone."""
    events = schema.events
    with engine.begin() as connection:
        ids = [event_id for event_id, left in _noted(connection) if left == deleted]
        connection.execute(sa.delete(events).where(events.c.event_id.in_(ids)))


def _require_same(connection: sa.Connection, doomed: Sequence[DoomedStudy]) -> None:
    """Refuse what changed since: SQLite gives the key of a deleted study out again."""
    studies, own = schema.studies, schema.own_studies
    for one in doomed:
        query = (
            sa.select(studies.c.study_name, own.c.lineage)
            .outerjoin(own, own.c.study_id == studies.c.study_id)
            .where(studies.c.study_id == one.study_id)
        )
        row = connection.execute(query).first()
        if row is None or (row.study_name, row.lineage or "") != (one.name, one.lineage):
            raise StudyError(f"study {one.name!r} was changed or deleted meanwhile: look again")


def _family_of(study: RawStudy) -> str:
    family = study.raw.get("family")
    return family if isinstance(family, str) else ""


def _counts(connection: sa.Connection, study_id: int) -> dict[TrialState, int]:
    trials = schema.trials
    query = (
        sa.select(trials.c.state, sa.func.count())
        .where(trials.c.study_id == study_id)
        .group_by(trials.c.state)
    )
    return {state: number for state, number in connection.execute(query).all()}


def _artifacts(connection: sa.Connection, study_id: int) -> list[str]:
    """List the names of the files that hang on a study or one of its trials."""
    of_trial, of_study = schema.trial_system_attributes, schema.study_system_attributes
    own_trials = sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id)
    found: set[str] = set()
    for table, is_own in (
        (of_trial, of_trial.c.trial_id.in_(own_trials)),
        (of_study, of_study.c.study_id == study_id),
    ):
        keys = sa.select(table.c.key).where(is_own, table.c.key.startswith(ARTIFACT_PREFIX))
        found |= {key.removeprefix(ARTIFACT_PREFIX) for key in connection.scalars(keys)}
    return sorted(found)


def _still_named(connection: sa.Connection, artifacts: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for table in (schema.trial_system_attributes, schema.study_system_attributes):
        for start in range(0, len(artifacts), _CHUNK):
            keys = [f"{ARTIFACT_PREFIX}{file}" for file in artifacts[start : start + _CHUNK]]
            named = connection.scalars(sa.select(table.c.key).where(table.c.key.in_(keys)))
            found |= {key.removeprefix(ARTIFACT_PREFIX) for key in named}
    return found


def _delete_rows(connection: sa.Connection, study_id: int) -> None:
    trials = schema.trials
    own_trials = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    for table in schema.TABLES_OF_TRIALS:
        connection.execute(sa.delete(table).where(table.c.trial_id.in_(own_trials)))
    for table in (schema.leases, schema.events, schema.own_studies, *schema.TABLES_OF_STUDIES):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    connection.execute(sa.delete(schema.studies).where(schema.studies.c.study_id == study_id))


def _note_left(connection: sa.Connection, left: DeletedStudy) -> None:
    note: dict[str, Any] = {
        "study_id": _NOBODY,
        "trial_id": _NOBODY,
        "attempt": 0,
        "kind": _DELETED,
        "final": True,
        "epochs": 0,
        "worker": "",
        "detail": json.dumps(asdict(left)),
    }
    clock = schema.now(connection)
    connection.execute(sa.insert(schema.events).values(at=clock), note)


def _noted(connection: sa.Connection) -> list[tuple[int, DeletedStudy]]:
    events = schema.events
    query = sa.select(events.c.event_id, events.c.detail).where(
        events.c.study_id == _NOBODY, events.c.kind == _DELETED
    )
    found = []
    for event_id, detail in connection.execute(query):
        try:
            found.append((event_id, DeletedStudy(**json.loads(detail))))
        except (ValueError, TypeError):
            # Somebody else's row.
            continue
    return found
