"""Which workers hold trials, and what those that trained were, as far as their trials tell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.queue.schema import leases, now, studies, trial_user_attributes, trials
from skdtune.queue.trial_attributes import VERSIONS


@dataclass(frozen=True, kw_only=True)
class HeldTrial:
    """A trial in the hands of a worker."""

    study: str
    number: int
    worker: str
    """Host, process and device."""

    silent_s: float
    """Seconds since its last sign of life."""

    lease_s: float
    """Silence after which anybody may give the trial back."""

    @property
    def is_lost(self) -> bool:
        """Its worker fell silent, and nobody has given it back yet."""
        return self.silent_s > self.lease_s


def held_trials(engine: sa.Engine, study_ids: Sequence[int]) -> list[HeldTrial]:
    """List the trials that workers hold, study by study.

    Args:
        engine: The storage's engine.
        study_ids: Keys of the studies to look at.
    """
    with engine.connect() as connection:
        query = (
            sa.select(
                studies.c.study_name,
                trials.c.number,
                leases.c.host,
                leases.c.pid,
                leases.c.device,
                leases.c.lease_s,
                (now(connection) - leases.c.renewed_at).label("silent_s"),
            )
            .join(trials, trials.c.trial_id == leases.c.trial_id)
            .join(studies, studies.c.study_id == trials.c.study_id)
            .where(
                leases.c.study_id == trials.c.study_id,
                leases.c.study_id.in_(study_ids),
                leases.c.owner.is_not(None),
                trials.c.state == TrialState.RUNNING,
            )
            .order_by(studies.c.study_id, trials.c.number)
        )
        return [
            HeldTrial(
                study=row.study_name,
                number=row.number,
                worker=f"{row.host}:{row.pid} ({row.device})",
                silent_s=max(0.0, float(row.silent_s)),
                lease_s=float(row.lease_s),
            )
            for row in connection.execute(query)
        ]


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
