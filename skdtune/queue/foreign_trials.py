"""Trials that no worker of skdtune made, and rows that nobody can read: shown, and no result.

A study is a plain Optuna study: others may ask and tell in it, end a trial from outside, or add
one, with values that mean something else. What a worker did is in the story of a trial, written
in the transaction that made it true; whatever has no such story, or is no accuracy, is foreign. It
is listed, and is neither the best nor in any number, nor does sampler or pruner see it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from skdtune.describe.kinds.kind import VALIDATION_ACCURACY, Kind
from skdtune.queue.checked_values import measured
from skdtune.queue.events import EventKind
from skdtune.queue.leases import IS_WAITING
from skdtune.queue.schema import events, leases, own_studies, trials
from skdtune.queue.storage import DATABASE_ERRORS

#: Larger than every key: Optuna's query then returns the trials that are named, and no others.
NO_KEY_ABOVE = 2**31 - 1

_NOT_MADE = "no worker of skdtune made it"

#: A worker holds it; plain Optuna's `ask` takes a waiting trial without a lease.
_IS_HELD = (
    sa.select(leases.c.trial_id)
    .where(
        leases.c.trial_id == trials.c.trial_id,
        leases.c.study_id == trials.c.study_id,
        leases.c.owner.is_not(None),
    )
    .exists()
)
#: A worker ended it. One that a person failed or pruned from outside is still what a worker made,
#: as far as it came; a value that a person gave it is not.
_WAS_TRAINED = (
    sa.select(events.c.event_id)
    .where(
        events.c.trial_id == trials.c.trial_id,
        events.c.study_id == trials.c.study_id,
        sa.or_(
            events.c.final,
            sa.and_(
                events.c.kind == EventKind.CLAIMED.value, trials.c.state != TrialState.COMPLETE
            ),
        ),
    )
    .exists()
)
#: Studies that Optuna's tools copied from another storage have no story at all.
_HAS_STORY = (
    sa.select(own_studies.c.study_id).where(own_studies.c.study_id == trials.c.study_id).exists()
)
_RUNS = trials.c.state == TrialState.RUNNING

#: A trial that has begun, by somebody else.
IS_FOREIGN = sa.and_(~IS_WAITING, _HAS_STORY, sa.case((_RUNS, ~_IS_HELD), else_=~_WAS_TRAINED))


@dataclass(frozen=True)
class CheckedTrial:
    """A trial as Optuna has it, and whether it counts."""

    trial: FrozenTrial
    """Without anything but number and state where its rows cannot be read."""

    foreign: str = ""
    """Why it is foreign; empty for what skdtune's workers made."""


def read_checked(
    storage: RDBStorage, study_id: int, kind: Kind, number: int | None = None
) -> list[CheckedTrial]:
    """Read the trials of a study, each with the reason if it is foreign; no row ends the reading.

    Args:
        storage: The storage, as skdtune opens it.
        study_id: Key of the study.
        kind: Kind of the study.
        number: Read this one alone.
    """
    only = None
    if number is not None:
        key = sa.select(trials.c.trial_id).where(
            trials.c.study_id == study_id, trials.c.number == number
        )
        with storage.engine.connect() as connection:
            only = set(connection.scalars(key))
    found, unreadable = read_frozen(storage, study_id, only)
    with storage.engine.connect() as connection:
        foreign = foreign_ids(connection, study_id, only)
    checked = [
        CheckedTrial(
            trial,
            _NOT_MADE if trial._trial_id in foreign else strange_value(trial, kind),
        )
        for trial in found
    ]
    checked += unreadable
    return sorted(checked, key=lambda one: one.trial.number)


def read_own(storage: RDBStorage, study_id: int, kind: Kind) -> list[FrozenTrial]:
    """Read the trials of a study that are not foreign."""
    return [one.trial for one in read_checked(storage, study_id, kind) if not one.foreign]


def without_foreign(study: optuna.Study, storage: RDBStorage, kind: Kind) -> optuna.Study:
    """Return a study as Optuna's own estimators may see it; a copy where a trial is foreign.

    Args:
        study: The study.
        storage: The storage, as skdtune opens it.
        kind: Kind of the study.
    """
    checked = read_checked(storage, study._study_id, kind)
    if not any(one.foreign for one in checked):
        return study
    own = InMemoryStorage()
    study_id = own.create_new_study([StudyDirection.MAXIMIZE], study.study_name)
    for one in checked:
        if not one.foreign and one.trial.state is TrialState.COMPLETE:
            own.create_new_trial(study_id, one.trial)
    return optuna.Study(study.study_name, own)


def foreign_ids(
    connection: sa.Connection, study_id: int, among: Collection[int] | None = None
) -> set[int]:
    """Return the keys of the trials that somebody else began.

    Args:
        connection: The storage.
        study_id: Key of the study.
        among: Look at these alone.
    """
    query = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id, IS_FOREIGN)
    if among is None:
        return set(connection.scalars(query))
    keys = sorted(among)
    return {
        key
        for start in range(0, len(keys), 1000)
        for key in connection.scalars(
            query.where(trials.c.trial_id.in_(keys[start : start + 1000]))
        )
    }


def count_foreign(connection: sa.Connection, study_id: int) -> dict[TrialState, int]:
    """Count the trials that somebody else began, by their state."""
    query = (
        sa.select(trials.c.state, sa.func.count())
        .where(trials.c.study_id == study_id, IS_FOREIGN)
        .group_by(trials.c.state)
    )
    return {state: number for state, number in connection.execute(query).all()}


def strange_value(trial: FrozenTrial, kind: Kind) -> str:
    """Say what of a trial's values is no accuracy; empty if all of them are."""
    if trial.state is TrialState.COMPLETE:
        values = trial.values or []
        if len(values) != 1:
            return f"it has {len(values)} values"
        return _strange(values[0], kind.metric_name)
    if kind.step_name != VALIDATION_ACCURACY:
        return ""
    reported = (_strange(value, kind.step_name) for value in trial.intermediate_values.values())
    return next((why for why in reported if why), "")


def _strange(value: Any, name: str) -> str:
    plain = measured(value)
    # What is not finite because nothing was measured stands for nothing, and is left out.
    if plain is not None and (math.isnan(plain) or 0 <= plain <= 1):
        return ""
    shown = f"{value!r}" if plain is None else f"{plain:g}"
    return f"{shown} is no {name}, which is a share from 0 to 1"


def read_frozen(
    storage: RDBStorage,
    study_id: int,
    only: Collection[int] | None = None,
    states: Sequence[TrialState] | None = None,
) -> tuple[list[FrozenTrial], list[CheckedTrial]]:
    """Read trials as Optuna does; those whose rows it cannot read come by themselves.

    Args:
        storage: The storage.
        study_id: Key of the study.
        only: Keys of the trials to read; default all.
        states: Read trials of these states.

    Returns:
        The trials, in the order of their keys, and those that cannot be read.
    """
    if only is not None and not only:
        return [], []
    try:
        wanted, above = (set(), -1) if only is None else (set(only), NO_KEY_ABOVE)
        found = storage._get_trials(study_id, states, wanted, above)
        named = [trial for trial in found if trial.number is not None]
        nameless = [trial._trial_id for trial in found if trial.number is None]
        return named, [_unreadable(storage, key, "they have no number") for key in nameless]
    except DATABASE_ERRORS:
        raise
    except Exception as error:
        keys = sorted(_keys(storage, study_id, states) if only is None else only)
        if not keys:
            raise
        if len(keys) == 1:
            return [], [_unreadable(storage, keys[0], type(error).__name__)]
    # Halves, and halves of these: few of many thousand are found in few reads.
    middle = len(keys) // 2
    halves = [
        read_frozen(storage, study_id, part, states) for part in (keys[:middle], keys[middle:])
    ]
    return [t for half in halves for t in half[0]], [c for half in halves for c in half[1]]


def _keys(storage: RDBStorage, study_id: int, states: Sequence[TrialState] | None) -> list[int]:
    query = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    if states is not None:
        query = query.where(trials.c.state.in_(states))
    with storage.engine.connect() as connection:
        return list(connection.scalars(query))


def _unreadable(storage: RDBStorage, trial_id: int, why: str) -> CheckedTrial:
    # As text: what cannot be read may be the state.
    columns = (trials.c.number, sa.cast(trials.c.state, sa.String))
    query = sa.select(*columns).where(trials.c.trial_id == trial_id)
    with storage.engine.connect() as connection:
        number, state = connection.execute(query).one()
    known = TrialState.__members__.get(str(state), TrialState.FAIL)
    empty = FrozenTrial(
        number=-1 if number is None else number,
        state=known,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=trial_id,
    )
    return CheckedTrial(empty, f"its rows cannot be read ({why})")
