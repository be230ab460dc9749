"""The data that a study was begun with, pinned when its first trial is claimed.

A pin is an attribute of the study, written in the transaction of that claim and never changed: of
two workers that begin a study with different data one takes a trial, and the other none. It is
deleted with the study.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import sqlalchemy as sa

from skdtune.describe.data_source import DataSource, Part, refusal
from skdtune.describe.kinds.final_evaluation import FinalEvaluation
from skdtune.describe.spec import StudySpec
from skdtune.errors import OtherDataError, StudyError
from skdtune.queue import schema
from skdtune.queue.leases import upsert

#: System attributes of a study.
ATTRIBUTES: Mapping[Part, str] = {"train": "skdtune:source", "test": "skdtune:test_source"}

#: The parts of a data set with what they come from.
Sources = Mapping[Part, DataSource]


def read_pins(engine: sa.Engine, study_id: int, study: str) -> Sources:
    """Read what a study was begun with; empty before its first trial was taken.

    Raises:
        StudyError: If it is damaged.
    """
    with engine.connect() as connection:
        return _read(connection, study_id, study)


def pin(connection: sa.Connection, study_id: int, study: str, sources: Sources) -> None:
    """Pin the data of a study, or refuse others than it was begun with.

    Args:
        connection: The transaction in which a trial is claimed.
        study_id: Key of the study.
        study: Its name.
        sources: What the worker that claims has.

    Raises:
        OtherDataError: If the study was begun with other data.
        StudyError: If what it was begun with is damaged.
    """
    _write(connection, study_id, sources)
    # Whoever wrote it first: another worker may have done so a moment ago.
    for part, pinned in _read(connection, study_id, study).items():
        if part in sources and sources[part] != pinned:
            raise OtherDataError(refusal(study, part, pinned, sources[part]))


def inherit_pin(connection: sa.Connection, spec: StudySpec, study_id: int) -> None:
    """Let a final evaluation learn from the images of its search, and from no others.

    Args:
        connection: The transaction in which the evaluation is created or gets more seeds.
        spec: The spec of a study; of any other kind nothing is written.
        study_id: Its key.
    """
    if not isinstance(spec.kind, FinalEvaluation):
        return
    studies, own = schema.studies, schema.own_studies
    source_id = connection.scalar(
        sa.select(own.c.study_id)
        .join(studies, studies.c.study_id == own.c.study_id)
        .where(own.c.lineage == spec.kind.settings.lineage)
    )
    if source_id is not None:
        pins = _read(connection, source_id, spec.kind.source)
        _write(connection, study_id, {part: pins[part] for part in pins if part == "train"})


def _read(connection: sa.Connection, study_id: int, study: str) -> dict[Part, DataSource]:
    table, pins = schema.study_system_attributes, {}
    for part, key in ATTRIBUTES.items():
        found = sa.select(table.c.value_json).where(table.c.study_id == study_id)
        stored = connection.scalar(found.where(table.c.key == key))
        if stored is None:
            continue
        try:
            pins[part] = DataSource.from_plain(json.loads(stored))
        except (ValueError, RecursionError) as error:
            raise StudyError(
                f"study {study!r}: its note of the data that it was begun with ({key}) is damaged "
                f"({error}); restore it from a backup, or create a new study"
            ) from None
    return pins


def _write(connection: sa.Connection, study_id: int, sources: Sources) -> None:
    insert = upsert(connection.dialect.name, schema.study_system_attributes)
    for part, source in sources.items():
        row = {
            "study_id": study_id,
            "key": ATTRIBUTES[part],
            "value_json": json.dumps(source.to_plain()),
        }
        connection.execute(insert.values(row).on_conflict_do_nothing())
