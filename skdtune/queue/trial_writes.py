"""What the owner of a trial writes about it: parameters, curve, attributes and its end.

Each function is one transaction that proves the ownership within itself, and may be repeated: a
call whose answer was lost with the connection changes nothing when it is made again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from skdtune.errors import LeaseLostError
from skdtune.queue import schema
from skdtune.queue.events import EventKind
from skdtune.queue.leases import Claim, is_held, note, owned, upsert, utc_now
from skdtune.queue.schema import events, leases, trials
from skdtune.queue.trial_attributes import JUDGED_EPOCHS

_FINITE_STEP = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
_FINITE_VALUE = models.TrialValueModel.TrialValueType.FINITE


def write_params(
    engine: sa.Engine,
    claimed: Claim,
    params: Mapping[str, tuple[float, BaseDistribution]],
) -> None:
    """Store all parameters of a trial at once, in Optuna's internal representation.

    Raises:
        LeaseLostError: If the trial is not the claim's any more; nothing was written.
    """
    rows = [
        {
            "trial_id": claimed.trial_id,
            "param_name": name,
            "param_value": value,
            "distribution_json": distribution_to_json(distribution),
        }
        for name, (value, distribution) in params.items()
    ]
    with owned(engine, claimed) as connection:
        if rows:
            insert = upsert(connection.dialect.name, schema.params)
            connection.execute(insert.on_conflict_do_nothing(), rows)


def write_attributes(
    engine: sa.Engine,
    claimed: Claim,
    user: Mapping[str, Any] | None = None,
    system: Mapping[str, Any] | None = None,
) -> None:
    """Store attributes of a trial.

    Raises:
        LeaseLostError: If the trial is not the claim's any more; nothing was written.
    """
    with owned(engine, claimed) as connection:
        _upsert_attributes(connection, schema.trial_user_attributes, claimed, user or {})
        _upsert_attributes(connection, schema.trial_system_attributes, claimed, system or {})


def write_note(
    engine: sa.Engine, claimed: Claim, kind: EventKind, epochs: int, detail: str
) -> None:
    """Note something that the trial outlived.

    Raises:
        LeaseLostError: If the trial is not the claim's any more; nothing was written.
    """
    with owned(engine, claimed) as connection:
        note(connection, claimed, kind, epochs, detail)


def write_judgement(engine: sa.Engine, claimed: Claim, num_epochs: int, spared: str = "") -> None:
    """Store how far a trial was judged: a resumed one is neither passed over nor judged twice.

    Args:
        engine: The storage's engine.
        claimed: The trial in hand.
        num_epochs: Finished epochs up to which it was judged.
        spared: A sentence for people where it goes on although the pruner would have stopped it;
            the story tells the first time.

    Raises:
        LeaseLostError: If the trial is not the claim's any more; nothing was written.
    """
    with owned(engine, claimed) as connection:
        system = {JUDGED_EPOCHS: num_epochs}
        _upsert_attributes(connection, schema.trial_system_attributes, claimed, system)
        told = sa.select(events.c.event_id).where(
            events.c.trial_id == claimed.trial_id,
            events.c.study_id == claimed.study_id,
            events.c.kind == EventKind.SPARED.value,
        )
        if spared and connection.scalar(told.limit(1)) is None:
            note(connection, claimed, EventKind.SPARED, num_epochs, spared)


def write_report(engine: sa.Engine, claimed: Claim, epoch: int, val_accuracy: float) -> None:
    """Store the validation accuracy of an epoch and renew the lease.

    Raises:
        LeaseLostError: If the trial is not the claim's any more; nothing was written.
    """
    with owned(engine, claimed) as connection:
        _upsert_steps(connection, claimed, {epoch: val_accuracy})


def rewind(
    engine: sa.Engine,
    claimed: Claim,
    curve: Sequence[float],
    rung_marks: Iterable[str],
    kind: EventKind,
    detail: str,
) -> None:
    """Make the stored curve what a checkpoint holds: add what is missing, remove what is later.

    Args:
        engine: The storage's engine.
        claimed: The trial in hand.
        curve: Validation accuracies of the checkpoint's epochs; empty to start over.
        rung_marks: System attributes of rungs that lie beyond it.
        kind: Resumed or restarted.
        detail: A sentence for people.

    Raises:
        LeaseLostError: If the trial is not the claim's any more; nothing was written.
    """
    marks, steps = schema.trial_system_attributes, schema.steps
    with owned(engine, claimed) as connection:
        connection.execute(
            sa.delete(steps).where(
                steps.c.trial_id == claimed.trial_id, steps.c.step >= len(curve)
            )
        )
        connection.execute(
            sa.delete(marks).where(
                marks.c.trial_id == claimed.trial_id, marks.c.key.in_(list(rung_marks))
            )
        )
        _upsert_steps(connection, claimed, dict(enumerate(curve)))
        note(connection, claimed, kind, len(curve), detail)


def finish(
    engine: sa.Engine,
    claimed: Claim,
    state: TrialState,
    kind: EventKind,
    *,
    value: float | None,
    epochs: int,
    detail: str = "",
    user: Mapping[str, Any] | None = None,
    system: Mapping[str, Any] | None = None,
    unstored: Mapping[int, float] | None = None,
) -> None:
    """End a trial: state, value, attributes, story and lease, all or nothing.

    Args:
        engine: The storage's engine.
        claimed: The trial in hand.
        state: Complete, pruned or failed.
        kind: How it ended.
        value: Its value; the last validation accuracy of a pruned trial, as Optuna keeps it.
        epochs: Its finished epochs.
        detail: A sentence for people.
        user: User attributes to leave.
        system: System attributes to leave.
        unstored: Validation accuracies by epoch that could not be stored before.

    Raises:
        LeaseLostError: If the trial is not the claim's any more; nothing was written.
    """
    with engine.begin() as connection:
        held = connection.execute(
            sa.update(trials)
            .where(
                trials.c.trial_id == claimed.trial_id,
                trials.c.study_id == claimed.study_id,
                trials.c.state == TrialState.RUNNING,
                sa.select(leases.c.trial_id).where(*is_held(claimed)).exists(),
            )
            .values(state=state, datetime_complete=utc_now())
        )
        if held.rowcount != 1:
            if _ended_by(connection, claimed):
                return
            raise LeaseLostError("the lease was lost")
        # Whoever reaps it waits for the trial's lock, and then finds it finished.
        gone = connection.execute(
            sa.delete(leases).where(
                leases.c.trial_id == claimed.trial_id,
                leases.c.owner == claimed.worker.token,
                leases.c.attempt == claimed.attempt,
            )
        )
        if gone.rowcount != 1:
            raise LeaseLostError("the lease was lost")
        _upsert_steps(connection, claimed, unstored or {})
        if value is not None:
            connection.execute(
                sa.insert(schema.values).values(
                    trial_id=claimed.trial_id, objective=0, value=value, value_type=_FINITE_VALUE
                )
            )
        _upsert_attributes(connection, schema.trial_user_attributes, claimed, user or {})
        _upsert_attributes(connection, schema.trial_system_attributes, claimed, system or {})
        note(connection, claimed, kind, epochs, detail, final=True)


def _ended_by(connection: sa.Connection, claimed: Claim) -> bool:
    """Tell whether this very claim ended the trial in an earlier call whose answer was lost.

    The number of the attempt says it; the name of the worker only where a key was given out again.
    """
    last = connection.execute(
        sa.select(events.c.attempt, events.c.worker)
        .where(
            events.c.trial_id == claimed.trial_id,
            events.c.study_id == claimed.study_id,
            events.c.final,
        )
        .order_by(events.c.event_id.desc())
        .limit(1)
    ).first()
    return last is not None and tuple(last) == (claimed.attempt, str(claimed.worker))


def _upsert_steps(connection: sa.Connection, claimed: Claim, curve: Mapping[int, float]) -> None:
    rows = [
        {
            "trial_id": claimed.trial_id,
            "step": epoch,
            "intermediate_value": value,
            "intermediate_value_type": _FINITE_STEP,
        }
        for epoch, value in curve.items()
    ]
    if rows:
        changed = ("intermediate_value", "intermediate_value_type")
        statement = _overwriting(connection.dialect.name, schema.steps, "step", changed)
        connection.execute(statement, rows)


@functools.cache
def _overwriting(dialect: str, table: sa.Table, key: str, changed: tuple[str, ...]) -> Any:
    """Build an INSERT that overwrites, once: rows of VALUES are compiled anew at each call."""
    insert = upsert(dialect, table)
    return insert.on_conflict_do_update(
        index_elements=["trial_id", key],
        set_={name: insert.excluded[name] for name in changed},
    )


def _upsert_attributes(
    connection: sa.Connection, table: sa.Table, claimed: Claim, attributes: Mapping[str, Any]
) -> None:
    rows = [
        {"trial_id": claimed.trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]
    if rows:
        statement = _overwriting(connection.dialect.name, table, "key", ("value_json",))
        connection.execute(statement, rows)
