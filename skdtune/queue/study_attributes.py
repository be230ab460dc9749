"""What the storage holds of a study beside its trials: each attribute's name, writer and reader.

User attributes are what people look at, short enough for a line of `optuna studies` and of the
dashboard; system attributes are for skdtune, shown by neither. All of them were user attributes
once: such studies are read where they are, but a system attribute of that name comes first.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import sqlalchemy as sa

from skdtune.describe.packages import packages_of
from skdtune.describe.spec import StudySpec
from skdtune.queue import schema

# System attributes

SPEC_ATTRIBUTE = "skdtune:spec"
#: The installed packages that the study needs; only where it needs any.
PACKAGES_ATTRIBUTE = "skdtune:packages"
#: Optuna's own: the names of the objectives.
_METRIC_NAMES = "study:metric_names"

# User attributes

DIGEST_ATTRIBUTE = "skdtune:spec_hash"
VERSIONS_ATTRIBUTE = "skdtune:versions"

_OURS = (SPEC_ATTRIBUTE, PACKAGES_ATTRIBUTE, DIGEST_ATTRIBUTE, VERSIONS_ATTRIBUTE)
_NOTE_PIECE = 2045


def user_attributes(spec: StudySpec, versions: dict[str, str]) -> dict[str, Any]:
    """Return what people see with a study, wherever they list it."""
    return {DIGEST_ATTRIBUTE: spec.digest, VERSIONS_ATTRIBUTE: versions}


def system_attributes(spec: StudySpec) -> dict[str, Any]:
    """Return what stands beside it: the spec, and what Optuna and the dashboard read."""
    needed = packages_of(spec)
    return {
        SPEC_ATTRIBUTE: spec.to_json(),
        **({PACKAGES_ATTRIBUTE: needed} if needed else {}),
        # It becomes part of the name of a column of a data frame.
        _METRIC_NAMES: [spec.kind.metric_name.replace(" ", "_")],
        **_note_attributes(spec.note()),
    }


def _note_attributes(note: str) -> dict[str, object]:
    """Cut a note into the attributes that optuna-dashboard reads it from.

    Its own function is not called because importing the dashboard takes seconds, which every
    worker would pay; a test reads the note back through the dashboard.
    """
    pieces = range(0, len(note), _NOTE_PIECE)
    return {"dashboard:note_ver": 1} | {
        f"dashboard:note_str:{index}": note[start : start + _NOTE_PIECE]
        for index, start in enumerate(pieces)
    }


def read_attributes(connection: sa.Connection, study_id: int) -> dict[str, Any]:
    """Read skdtune's own attributes of a study; a system attribute wins over a user attribute.

    Returns:
        The values by name, as anybody may have written them; what is no JSON comes as its text.
    """
    found: dict[str, Any] = {}
    for table in (schema.study_user_attributes, schema.study_system_attributes):
        rows = connection.execute(
            sa.select(table.c.key, table.c.value_json).where(
                table.c.study_id == study_id, table.c.key.in_(_OURS)
            )
        )
        for key, text in rows:
            found[key] = text
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                found[key] = json.loads(text)
    return found


def stored_specs() -> sa.Subquery:
    """Select ``study_id`` and ``value_json``, the spec, of every study that holds one."""
    here, before = schema.study_system_attributes, schema.study_user_attributes
    studies = sa.select(here.c.study_id).where(here.c.key == SPEC_ATTRIBUTE)
    return sa.union_all(
        sa.select(here.c.study_id, here.c.value_json).where(here.c.key == SPEC_ATTRIBUTE),
        sa.select(before.c.study_id, before.c.value_json).where(
            before.c.key == SPEC_ATTRIBUTE, before.c.study_id.not_in(studies)
        ),
    ).subquery("stored_specs")


def raw_spec(value_json: str) -> dict[str, Any] | None:
    """Return a spec of :func:`stored_specs` as plain data that nobody has validated.

    Returns:
        None if it is none.
    """
    try:
        raw = json.loads(json.loads(value_json))["spec"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None
