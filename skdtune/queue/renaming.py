"""Give a study another name: one transaction; its token says that it is the same study."""

from __future__ import annotations

import json

import sqlalchemy as sa
from optuna.storages import RDBStorage
from pydantic import TypeAdapter, ValidationError

from skdtune.describe.identity import StudyName
from skdtune.describe.kinds.final_evaluation import evaluation_name
from skdtune.errors import InputError, StudyError
from skdtune.queue import schema
from skdtune.queue.final_evaluation import evaluations_of
from skdtune.queue.idle import lock_idle, reap_silent
from skdtune.queue.stored_study import raw_studies, unknown_study


def rename_study(storage: RDBStorage, study: str, name: str) -> dict[str, str]:
    """Rename a study, and with it the evaluation that has the usual name.

    The spec stays as it was created, its hash too. Workers are started by a study's name, and so
    they must not run; checkpoints and evaluations are found by its token.

    Args:
        storage: The storage.
        study: Name of the study.
        name: What it is called from now on.

    Returns:
        The new names by the old ones.

    Raises:
        StudyError: If there is no such study, workers train it, or the name is taken; nothing was
            changed.
        InputError: If the name is none.
    """
    _require_name(name)
    with storage.engine.connect() as connection:
        moved = _moved(connection, study, name)
    if moved is None:
        raise StudyError(unknown_study(storage, study))
    reap_silent(storage.engine, moved)
    try:
        with storage.engine.begin() as connection:
            moved = _moved(connection, study, name) or {}
            lock_idle(connection, moved)
            for study_id, (old, new) in moved.items():
                _require_free(connection, new)
                connection.execute(
                    sa.update(schema.studies)
                    .where(schema.studies.c.study_id == study_id)
                    .values(study_name=new)
                )
                _rename_note(connection, study_id, old, new)
    except sa.exc.IntegrityError:
        # Somebody took the name in this moment.
        raise StudyError(f"the name {name!r} was taken just now: choose another one") from None
    return dict(moved.values())


def _require_name(name: str) -> None:
    try:
        TypeAdapter(StudyName).validate_python(name)
    except ValidationError:
        raise InputError(
            f"{name!r} is no name of a study: up to 100 letters, digits, '.', '_' and '-', the "
            "first a letter or a digit"
        ) from None


def _moved(connection: sa.Connection, study: str, name: str) -> dict[int, tuple[str, str]] | None:
    """Return old and new names by the key of the study; None if there is no such study."""
    every = raw_studies(connection)
    chosen = next((one for one in every if one.name == study), None)
    if chosen is None:
        return None
    own = schema.own_studies
    lineage = connection.scalar(sa.select(own.c.lineage).where(own.c.study_id == chosen.study_id))
    evaluations = evaluations_of(every, [lineage] if lineage else [])
    moved = {chosen.study_id: (study, name)}
    for one in evaluations:
        if one.name == evaluation_name(study):
            moved[one.study_id] = (one.name, evaluation_name(name))
    for _, new in moved.values():
        _require_name(new)
    return moved


def _require_free(connection: sa.Connection, name: str) -> None:
    taken = sa.select(schema.studies.c.study_id).where(schema.studies.c.study_name == name)
    if connection.scalar(taken) is not None:
        raise StudyError(f"there is a study {name!r} already: choose another name")


def _rename_note(connection: sa.Connection, study_id: int, old: str, new: str) -> None:
    """Change the heading of the dashboard's note, where it still is the one it was made with."""
    table = schema.study_system_attributes
    here = (table.c.study_id == study_id, table.c.key == "dashboard:note_str:0")
    stored = connection.scalar(sa.select(table.c.value_json).where(*here)) or ""
    before, after = (json.dumps(f"## {name}\n")[:-1] for name in (old, new))
    if stored.startswith(before):
        text = after + stored.removeprefix(before)
        connection.execute(sa.update(table).where(*here).values(value_json=text))
