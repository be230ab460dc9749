"""One more trial of a study, with parameters that a person chose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.describe.queued_parameters import left_to_sample, read_queued
from skdtune.describe.space import Scalar
from skdtune.errors import InputError, StudyError
from skdtune.queue import schema
from skdtune.queue.foreign_trials import read_checked
from skdtune.queue.stored_study import StoredStudy, add_trials
from skdtune.queue.trial_attributes import QUEUED_PARAMS
from skdtune.queue.trial_budget import MAX_TRIALS, num_trials_locked


@dataclass(frozen=True, kw_only=True)
class QueuedTrial:
    """A trial that waits with parameters of a person's choice."""

    study: str
    trial: int
    """Its number."""

    num_trials: int
    """Trials that the study has now."""

    params: dict[str, Scalar]
    """What was chosen."""

    sampled: list[str]
    """Parameters that will, or may, be sampled when a worker takes it."""


def queue_trial(
    stored: StoredStudy, pairs: Sequence[str], *, like: int | None = None, again: bool = False
) -> QueuedTrial:
    """Queue one more trial behind all others; what is not chosen is sampled when it is taken.

    One transaction, so that workers and others who change the number of trials may do it at the
    same time.

    Args:
        stored: The study; it has one trial more afterwards.
        pairs: ``path=value`` as a person types them.
        like: Number of a trial whose other parameters are taken over.
        again: Take parameters that another trial was queued with.

    Raises:
        StudyError: If no trial can be queued in such a study, or there is no trial to be like.
        InputError: If a parameter is none, a trial was queued with the same, or there are too
            many trials; nothing was changed.
    """
    spec = stored.spec
    spec.kind.require_queueable(spec.name)
    if not pairs and like is None:
        raise InputError(
            "name a parameter to try (KEY=VALUE), or a trial to start from (--like); `skdtune "
            f"budget {spec.name} N` adds trials whose parameters are all sampled"
        )
    model = {} if like is None else params_like(stored, like)
    params = read_queued(spec, pairs, model)
    with stored.engine.begin() as connection:
        number = num_trials_locked(connection, stored.study_id)
        if number >= MAX_TRIALS:
            raise InputError(f"a study has at most {MAX_TRIALS} trials")
        twin = like if params == model else _find_twin(connection, stored.study_id, params)
        if twin is not None and not again:
            raise InputError(
                f"trial {twin} has the same parameters; --again trains them from another seed"
            )
        add_trials(connection, stored.study_id, range(number, number + 1), [params])
    return QueuedTrial(
        study=spec.name,
        trial=number,
        num_trials=number + 1,
        params=params,
        sampled=left_to_sample(spec, params),
    )


def params_like(stored: StoredStudy, number: int) -> dict[str, Scalar]:
    """Return the parameters of a trial: as they were sampled, else as they were queued.

    Raises:
        StudyError: If there is no such trial, or it has none yet.
    """
    name = stored.spec.name
    found = read_checked(stored.storage, stored.study_id, stored.spec.kind, number)
    if not found:
        raise StudyError(f"study {name!r} has no trial {number}")
    trial = found[0].trial
    queued = trial.system_attrs.get(QUEUED_PARAMS)
    params = trial.params or (queued if isinstance(queued, dict) else {})
    if not params:
        raise StudyError(
            f"trial {number} of {name!r} has no parameters yet: they are sampled when a worker "
            "takes it"
        )
    return dict(params)


def _find_twin(
    connection: sa.Connection, study_id: int, params: Mapping[str, Scalar]
) -> int | None:
    """Return the first trial that was queued with the same parameters and did not fail."""
    trials, attributes = schema.trials, schema.trial_system_attributes
    query = (
        sa.select(trials.c.number, attributes.c.value_json)
        .join(attributes, attributes.c.trial_id == trials.c.trial_id)
        .where(
            trials.c.study_id == study_id,
            trials.c.state != TrialState.FAIL,
            attributes.c.key == QUEUED_PARAMS,
        )
        .order_by(trials.c.number)
    )
    for number, text in connection.execute(query):
        try:
            if json.loads(text) == params:
                return int(number)
        except ValueError:
            continue
    return None
