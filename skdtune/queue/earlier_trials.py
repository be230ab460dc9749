"""What an epoch took in trials that this machine trained before, for who wants to know ahead."""

from __future__ import annotations

import json
import socket
import statistics

import sqlalchemy as sa

from skdtune.describe.kinds.catalogue import is_search
from skdtune.describe.spec import StudySpec, spec_from_json
from skdtune.errors import InputError
from skdtune.queue.checked_values import number
from skdtune.queue.events import EventKind
from skdtune.queue.schema import events, trial_user_attributes
from skdtune.queue.stored_study import raw_studies
from skdtune.queue.study_attributes import SPEC_ATTRIBUTE, read_attributes
from skdtune.queue.trial_attributes import EPOCH_SECONDS

#: Newest trials of a study that are looked at.
_NUM_LATEST = 50


def epoch_seconds_here(
    engine: sa.Engine, spec: StudySpec, host: str | None = None
) -> float | None:
    """Return the median seconds of an epoch in trials like those of a study, of this machine.

    Alike are trials of searches with the same data, network and methods; their other settings
    decide little of the time, and vary within a study, too.

    Args:
        engine: The storage's engine.
        spec: The study that is to be trained.
        host: Name of the machine; default this one's.

    Returns:
        None if there are none.
    """
    own = f"{host or socket.gethostname()}:"
    each_s: list[float] = []
    with engine.connect() as connection:
        for study in raw_studies(connection):
            if not is_search(study.raw):
                continue
            try:
                other = spec_from_json(read_attributes(connection, study.study_id)[SPEC_ATTRIBUTE])
            except (InputError, KeyError):
                continue
            if not _is_alike(spec, other):
                continue
            here = (
                sa.select(events.c.trial_id)
                .where(
                    events.c.study_id == study.study_id,
                    events.c.final,
                    events.c.kind.in_([EventKind.COMPLETE.value, EventKind.PRUNED.value]),
                    events.c.worker.startswith(own, autoescape=True),
                )
                .order_by(events.c.event_id.desc())
                .limit(_NUM_LATEST)
            )
            values = connection.scalars(
                sa.select(trial_user_attributes.c.value_json).where(
                    trial_user_attributes.c.trial_id.in_(here),
                    trial_user_attributes.c.key == EPOCH_SECONDS,
                )
            )
            each_s += [seconds for text in values if (seconds := _seconds(text)) is not None]
    return statistics.median(each_s) if each_s else None


def _is_alike(spec: StudySpec, other: StudySpec) -> bool:
    same = spec.data == other.data and spec.model == other.model
    return same and spec.method.terms().keys() == other.method.terms().keys()


def _seconds(text: str) -> float | None:
    """Return what an attribute holds, if that can be the time of an epoch."""
    try:
        seconds = number(json.loads(text))
    except ValueError:
        return None
    return seconds if seconds is not None and seconds > 0 else None
