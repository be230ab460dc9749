"""How long studies will still take: counted in epochs, from the first finished one on."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from skdtune.describe.spec import StudySpec
from skdtune.queue.checked_values import whole
from skdtune.queue.events import EventKind
from skdtune.queue.foreign_trials import IS_FOREIGN
from skdtune.queue.schema import FINISHED, events, trials

#: Trials that ended lately, from which is judged how long others take.
_NUM_LATEST = 50

#: What a trial in hand takes at least: it ends after its last epoch is stored, not with it.
_LEAST_EPOCHS = 0.5


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one study has done and has left to do, in epochs."""

    epochs_per_trial: int
    waiting: int
    """Trials that wait and may be taken."""

    in_hand: tuple[int, ...]
    """Finished epochs of each trial that a worker holds."""

    ended: tuple[int, ...]
    """Epochs of the trials that ended lately; those that were pruned had fewer."""

    epoch_s: float | None
    """Seconds that an epoch takes, all that a trial does beside it included; None if unknown."""

    images_per_anchor: int = 1
    """Images that an epoch sees for each that a plain one sees."""

    epochs_done: int = 0
    """Epochs of all trials, those in hand included."""

    @property
    def epochs_left(self) -> float:
        """Epochs that are still to be trained, as long as trials go on to end as they did."""
        usual = sum(self.ended) / len(self.ended) if self.ended else float(self.epochs_per_trial)
        return self.waiting * usual + sum(map(self._left_of, self.in_hand))

    @property
    def longest_left(self) -> float:
        """Epochs that are left of the trial in hand that has the most of them left."""
        return max(map(self._left_of, self.in_hand), default=0.0)

    def _left_of(self, epochs: int) -> float:
        """Expect of a trial what those came to that got as far; else that it is not pruned."""
        further = [ended for ended in self.ended if ended > epochs]
        whole = sum(further) / len(further) if further else float(self.epochs_per_trial)
        return max(whole - epochs, _LEAST_EPOCHS)


def time_left(paces: Sequence[Pace]) -> float | None:
    """Estimate the seconds until some studies are finished that share their workers.

    Workers that have a trial in hand share what is left evenly, but nobody can help with a trial
    that another one trains. A study whose epochs nobody has timed is taken to be as fast as the
    others, image by image.

    Returns:
        0 if nothing is left; None if nobody trains, or nothing was timed yet.
    """
    left = [pace for pace in paces if pace.waiting or pace.in_hand]
    if not left:
        return 0.0
    num_workers = sum(len(pace.in_hand) for pace in left)
    timed = [pace.epoch_s / pace.images_per_anchor for pace in paces if pace.epoch_s is not None]
    if not num_workers or not timed:
        return None
    usual = sum(timed) / len(timed)
    seconds = [
        usual * pace.images_per_anchor if pace.epoch_s is None else pace.epoch_s for pace in left
    ]
    total = sum(pace.epochs_left * each for pace, each in zip(left, seconds, strict=True))
    longest = max(pace.longest_left * each for pace, each in zip(left, seconds, strict=True))
    return max(total / num_workers, longest)


@dataclass(frozen=True)
class InHand:
    """A trial that a worker holds."""

    epochs: int
    """Finished epochs, those of earlier attempts included."""

    seconds: float
    """Time since the worker took it."""

    attempt: int


def read_pace(
    connection: sa.Connection,
    study_id: int,
    spec: StudySpec,
    *,
    waiting: int,
    in_hand: Mapping[int, InHand],
) -> Pace:
    """Read what a study has done and has left to do.

    Args:
        connection: To the storage.
        study_id: Key of the study.
        spec: Its spec.
        waiting: Trials that wait.
        in_hand: The trials that workers hold, by their keys.
    """
    # By another name: what is foreign is asked of the same table.
    ends = events.alias()
    query = (
        sa.select(trials.c.datetime_start, trials.c.datetime_complete, ends.c.epochs)
        .join(ends, sa.and_(ends.c.trial_id == trials.c.trial_id, ends.c.final))
        .where(
            trials.c.study_id == study_id,
            ends.c.study_id == study_id,
            trials.c.state.in_(FINISHED),
            ~IS_FOREIGN,
        )
        .order_by(trials.c.datetime_complete.desc())
        .limit(_NUM_LATEST)
    )
    done = sa.select(sa.func.sum(events.c.epochs)).where(
        events.c.study_id == study_id, events.c.final
    )
    try:
        rows = connection.execute(query).all()
    except (ValueError, TypeError):
        # A date that is none, in one of these rows: then nothing is estimated.
        rows = []
    ended = [(row, whole(row.epochs) or 0) for row in rows]
    # Two machines may have read the two ends of a trial, or one whose clock was set back.
    each_s = [
        max(0.0, (row.datetime_complete - row.datetime_start).total_seconds()) / epochs
        for row, epochs in ended
        if epochs and row.datetime_start and row.datetime_complete
    ]
    return Pace(
        epochs_per_trial=spec.budget.epochs,
        waiting=waiting,
        in_hand=tuple(trial.epochs for trial in in_hand.values()),
        ended=tuple(epochs for _, epochs in ended if epochs),
        # A trial that was interrupted for days must not count for all.
        epoch_s=statistics.median(each_s) if each_s else _seconds_so_far(connection, in_hand),
        images_per_anchor=spec.method.images_per_anchor,
        epochs_done=(whole(connection.scalar(done)) or 0)
        + sum(trial.epochs for trial in in_hand.values()),
    )


def _seconds_so_far(connection: sa.Connection, in_hand: Mapping[int, InHand]) -> float | None:
    """Return the seconds of an epoch in the trials that still train; None before the first."""
    resumed = [trial_id for trial_id, trial in in_hand.items() if trial.attempt > 1]
    before = _epochs_before(connection, resumed) if resumed else {}
    epochs = seconds = 0.0
    for trial_id, trial in in_hand.items():
        own = trial.epochs - before.get(trial_id, 0)
        if own > 0:
            # The one in hand is half done, on average.
            epochs += own + 0.5
            seconds += trial.seconds
    return seconds / epochs if epochs else None


def _epochs_before(connection: sa.Connection, trial_ids: Collection[int]) -> dict[int, int]:
    """Return the epochs from which the newest attempt at some trials went on."""
    query = (
        sa.select(events.c.trial_id, events.c.epochs)
        .where(events.c.trial_id.in_(trial_ids), events.c.kind == EventKind.RESUMED.value)
        .order_by(events.c.event_id)
    )
    return {trial_id: epochs for trial_id, epochs in connection.execute(query).all()}
