"""How many trials a study has: exactly so many, also after it was raised or lowered live."""

from __future__ import annotations

import sqlalchemy as sa

from skdtune.errors import InputError
from skdtune.queue import schema
from skdtune.queue.leases import IS_WAITING
from skdtune.queue.stored_study import add_trials
from skdtune.queue.trial_attributes import QUEUED_PARAMS

MAX_TRIALS = 100_000


def set_budget(engine: sa.Engine, study_id: int, num_trials: int) -> int:
    """Add waiting trials, or take away those with the highest numbers that nobody ever began.

    One transaction: a worker that claims at the same time gets a trial of the old budget or of
    the new one, and none beyond it.

    Args:
        engine: The storage's engine.
        study_id: Key of the study.
        num_trials: Trials that the study shall have, those that ended included.

    Returns:
        The number of trials it had before.

    Raises:
        InputError: If more trials have begun already, or the number is no budget; nothing was
            changed.
    """
    if not 1 <= num_trials <= MAX_TRIALS:
        raise InputError(f"a budget is 1 to {MAX_TRIALS} trials, received {num_trials}")
    with engine.begin() as connection:
        before = num_trials_locked(connection, study_id)
        if num_trials > before:
            add_trials(connection, study_id, range(before, num_trials))
        elif num_trials < before:
            _remove(connection, study_id, num_trials)
        return before


def queued_by_hand(engine: sa.Engine, study_id: int, num_trials: int) -> list[int]:
    """List the waiting trials that a person queued and that a lower budget would take away."""
    trials, attributes = schema.trials, schema.trial_system_attributes
    query = (
        sa.select(trials.c.number)
        .join(attributes, attributes.c.trial_id == trials.c.trial_id)
        .where(
            trials.c.study_id == study_id,
            trials.c.number >= max(1, num_trials),
            IS_WAITING,
            attributes.c.key == QUEUED_PARAMS,
        )
        .order_by(trials.c.number)
    )
    with engine.connect() as connection:
        return list(connection.scalars(query))


def num_trials_locked(connection: sa.Connection, study_id: int) -> int:
    """Count a study's trials, and let nobody else number new ones before the transaction ends."""
    studies, trials = schema.studies, schema.trials
    connection.execute(
        sa.select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update()
    )
    last = connection.scalar(
        sa.select(sa.func.max(trials.c.number)).where(trials.c.study_id == study_id)
    )
    return 0 if last is None else int(last) + 1


def _remove(connection: sa.Connection, study_id: int, num_trials: int) -> None:
    trials, leases = schema.trials, schema.leases
    surplus = (
        sa.select(trials.c.trial_id)
        .where(trials.c.study_id == study_id, trials.c.number >= num_trials)
        # Not those that a worker takes in this moment: it would find its trial gone.
        .where(IS_WAITING)
        .with_for_update(of=trials, skip_locked=True)
    )
    waiting = list(connection.scalars(surplus))
    # Read after the locks were had: until then a trial may have been begun and given back.
    begun = set(
        connection.scalars(sa.select(leases.c.trial_id).where(leases.c.study_id == study_id))
    )
    ids = [trial_id for trial_id in waiting if trial_id not in begun]
    surplus_now = sa.select(trials.c.trial_id, trials.c.number).where(
        trials.c.study_id == study_id, trials.c.number >= num_trials
    )
    removable = set(ids)
    staying = [
        row.number for row in connection.execute(surplus_now) if row.trial_id not in removable
    ]
    if staying:
        lowest = max(staying) + 1
        raise InputError(
            f"trials up to number {lowest - 1} have begun: the budget cannot be lower than "
            f"{lowest}, received {num_trials}"
        )
    for start in range(0, len(ids), 1000):
        chunk = ids[start : start + 1000]
        for table in (schema.trial_system_attributes, schema.trial_user_attributes, trials):
            connection.execute(sa.delete(table).where(table.c.trial_id.in_(chunk)))
