"""Which versions the workers had that trained, as far as their trials tell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from skdtune.queue.schema import trial_user_attributes, trials
from skdtune.queue.trial_attributes import VERSIONS


def versions_seen(engine: sa.Engine, study_ids: Sequence[int]) -> Mapping[str, Counter[str]]:
    """Count the trials by the versions of what they were trained with.

    Args:
        engine: The storage's engine.
        study_ids: Keys of the studies to look at.

    Returns:
        For each package how many trials each version trained.
    """
    query = (
        sa.select(trial_user_attributes.c.value_json, sa.func.count())
        .join(trials, trials.c.trial_id == trial_user_attributes.c.trial_id)
        .where(trials.c.study_id.in_(study_ids), trial_user_attributes.c.key == VERSIONS)
        .group_by(trial_user_attributes.c.value_json)
    )
    seen: dict[str, Counter[str]] = {}
    with engine.connect() as connection:
        for text, number in connection.execute(query).all():
            for package, version in _read(text).items():
                seen.setdefault(str(package), Counter())[str(version)] += number
    return seen


def _read(text: str) -> Mapping[str, Any]:
    """Read what a trial wrote; rows that nobody can read tell nothing."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
