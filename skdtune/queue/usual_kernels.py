"""Which kernels most trials of a study were computed with."""

from __future__ import annotations

import json

import sqlalchemy as sa

from skdtune.queue import schema
from skdtune.queue.trial_attributes import KERNELS


def usual_kernels(engine: sa.Engine, study_id: int) -> tuple[str, int] | None:
    """Return the kernels of most trials that say which they were computed with, and how many.

    Those of the earlier trial where as many say one thing as another.

    Returns:
        None before any trial says so.
    """
    attributes, trials = schema.trial_user_attributes, schema.trials
    count = sa.func.count()
    query = (
        sa.select(attributes.c.value_json, count)
        .join(trials, trials.c.trial_id == attributes.c.trial_id)
        .where(trials.c.study_id == study_id, attributes.c.key == KERNELS)
        .group_by(attributes.c.value_json)
        .order_by(count.desc(), sa.func.min(trials.c.number))
        .limit(1)
    )
    with engine.connect() as connection:
        row = connection.execute(query).first()
    if row is None:
        return None
    try:
        kernels = json.loads(row[0])
    except ValueError:
        return None
    return (kernels, row[1]) if isinstance(kernels, str) else None
