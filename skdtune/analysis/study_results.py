"""Read-only views of a study: progress, trials, the best one beside the published setting."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from skdtune.analysis.mixture import mixtures, read_mixtures
from skdtune.analysis.study_record import read_study
from skdtune.analysis.time_left import InHand, Pace, read_pace, time_left
from skdtune.analysis.trial_record import STATE_NAMES, TrialRecord, read_trial
from skdtune.analysis.verdict import standard_error
from skdtune.describe.kinds.kind import Kind
from skdtune.describe.spec import StudySpec
from skdtune.errors import StudyError
from skdtune.queue import leases, schema
from skdtune.queue.best_trial import best_so_far
from skdtune.queue.events import Event, story
from skdtune.queue.foreign_trials import count_foreign, read_checked
from skdtune.queue.pausing import paused_reason
from skdtune.queue.stored_study import StoredStudy, load_study


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial as :func:`results` hands it out."""

    number: int
    state: str
    """waiting, running, complete, pruned or failed."""

    value: float | None
    """Objective of a complete trial; the last epoch's value of any other."""

    value_name: str
    """What the value is: validation accuracy, test accuracy or training loss."""

    params: dict[str, Any]
    epochs: int
    """Finished epochs."""

    seconds: float | None
    """Wall-clock time from claim to end."""

    device: str | None
    seed: int | None
    failure_kind: str | None
    failure_reason: str | None

    foreign_because: InitVar[str] = ""
    """Why it counts nowhere; no field, so that plain data are what they were before."""

    def __post_init__(self, foreign_because: str) -> None:
        object.__setattr__(self, "_foreign", foreign_because)

    @property
    def foreign(self) -> str:
        """Why it counts nowhere: it is none that skdtune's workers made; empty if it is."""
        why: str = self._foreign  # type: ignore[attr-defined]
        return why

    @classmethod
    def of(cls, trial: TrialRecord) -> TrialResult:
        """Return what is handed out of a trial."""
        plain = trial.to_dict()
        return cls(foreign_because=plain.pop("foreign", ""), **plain)


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """A worker with the trial it holds."""

    host: str
    pid: int
    device: str
    trial: int
    attempt: int
    epochs: int
    """Finished epochs of the trial."""

    seconds: float
    """Time since it took the trial."""

    silent_s: float
    """Time since its last sign of life."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a study stands; cheap to read however many trials it has."""

    study: str
    description: str
    counts: dict[str, int]
    """Trials by state, foreign ones too."""

    num_trials: int
    epochs_per_trial: int
    best_trial: int | None
    best_value: float | None
    evaluates: str | None
    """The study that this one is the final evaluation of; None for a search."""

    workers: tuple[WorkerStatus, ...]
    eta_s: float | None
    """Estimated time left at the present number of workers; None before a trial has finished.
    `left_s` is there from the first epoch on."""

    paused: str | None
    """Why nobody takes a trial; None while they may."""

    kind: InitVar[Kind]
    """Kind of the study; no field, because nobody could read it from JSON."""

    mixed: InitVar[tuple[str, ...]] = ()
    """See `mixtures`; no field, because it is there only where there is something to say."""

    foreign_counts: InitVar[Mapping[str, int]] = MappingProxyType({})
    """Foreign trials among these, by state."""

    pace_so_far: InitVar[Pace | None] = None
    """What it has done and has left to do, in epochs."""

    def __post_init__(
        self,
        kind: Kind,
        mixed: tuple[str, ...],
        foreign_counts: Mapping[str, int],
        pace_so_far: Pace | None,
    ) -> None:
        object.__setattr__(self, "_pace", pace_so_far)
        object.__setattr__(self, "_result_command", kind.result_command(self.study))
        object.__setattr__(self, "_mixtures", mixed)
        object.__setattr__(self, "_foreign", dict(foreign_counts))

    @property
    def mixtures(self) -> tuple[str, ...]:
        """What the trials should have in common and have not, if it was looked for."""
        found: tuple[str, ...] = self._mixtures  # type: ignore[attr-defined]
        return found

    @property
    def foreign(self) -> dict[str, int]:
        """Trials that skdtune's workers did not make, by state; those that run are nobody's."""
        counts: dict[str, int] = self._foreign  # type: ignore[attr-defined]
        return counts

    @property
    def pace(self) -> Pace | None:
        """What it has done and has left to do, in epochs; for an estimate over studies."""
        pace: Pace | None = self._pace  # type: ignore[attr-defined]
        return pace

    @property
    def left_s(self) -> float | None:
        """Estimated time left at the present number of workers; None before the first epoch."""
        return self.eta_s if self.pace is None else time_left([self.pace])

    @property
    def num_finished(self) -> int:
        """Trials that are complete, pruned or failed."""
        return sum(self.counts[state] for state in ("complete", "pruned", "failed"))

    @property
    def finished(self) -> bool:
        """No trial is left to train; what runs elsewhere is not waited for."""
        return self.num_finished + self.foreign.get("running", 0) == self.num_trials

    @property
    def result_command(self) -> str:
        """What a person types to see the result."""
        command: str = self._result_command  # type: ignore[attr-defined]
        return command

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        said = {"mixtures": list(self.mixtures), "foreign": self.foreign}
        return dataclasses.asdict(self) | {key: value for key, value in said.items() if value}


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """All trials of a study, with the best one and the published setting picked out."""

    progress: Progress
    spec: StudySpec
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    """Best complete trial; the lower number wins a tie."""

    default: TrialResult | None
    """Trial 0, the published setting, once it is complete."""

    num_val_images: int | None
    """Images behind every validation accuracy."""

    data_fingerprints: frozenset[str]
    """What identifies the training and validation images; one, unless the data changed."""

    @property
    def mixtures(self) -> tuple[str, ...]:
        """What the trials should have in common and have not; empty as it should be."""
        return self.progress.mixtures

    @property
    def epochs_trained(self) -> int:
        """Epochs that all trials together took."""
        return sum(trial.epochs for trial in self.trials if not trial.foreign)

    def standard_error(self, value: float) -> float | None:
        """Return the binomial standard error of an accuracy on the validation images."""
        return standard_error(value, self.num_val_images)


@dataclass(frozen=True, kw_only=True)
class TrialStory:
    """One trial and everything that happened to it."""

    trial: TrialResult
    events: tuple[Event, ...]
    """Oldest first."""

    num_workers: int
    """Workers that had it in hand."""

    epochs_repeated: int
    """Epochs that were trained again because an attempt was cut off before their checkpoint.

    Counted from what the attempts report; the epoch in which an attempt was cut off is not among
    them, because nobody knows how far it had come.
    """

    mixtures: tuple[str, ...] = ()
    """What the trials of its study should have in common and have not."""


def results(study: str, *, storage: str | None = None) -> StudyResults:
    """Read a study with all its trials.

    Args:
        study: Name of the study.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Raises:
        StudyError: If there is no such study.
        StorageError: If the storage cannot be used.
    """
    with contextlib.closing(load_study(study, storage=storage)) as stored:
        return read_results(stored)


def read_results(stored: StoredStudy) -> StudyResults:
    """Read all trials of an opened study."""
    study = read_study(stored)
    results_of = {trial.number: TrialResult.of(trial) for trial in study.listed}
    best = study.ranked[0] if study.ranked else None
    return StudyResults(
        progress=read_progress(stored, mixed=mixtures(study.name, study.trials)),
        spec=stored.spec,
        trials=tuple(results_of.values()),
        best=results_of[best.number] if best else None,
        default=results_of[study.first.number] if study.first else None,
        num_val_images=study.num_images,
        data_fingerprints=study.data_fingerprints,
    )


def explain(study: str, number: int, *, storage: str | None = None) -> TrialStory:
    """Tell the story of one trial.

    Args:
        study: Name of the study.
        number: Number of the trial.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Raises:
        StudyError: If there is no such study, or no such trial in it.
        StorageError: If the storage cannot be used.
    """
    with contextlib.closing(load_study(study, storage=storage)) as stored:
        key = sa.select(schema.trials.c.trial_id).where(
            schema.trials.c.study_id == stored.study_id, schema.trials.c.number == number
        )
        with stored.engine.connect() as connection:
            trial_id = connection.scalar(key)
        if trial_id is None:
            last = sum(leases.counts(stored.engine, stored.study_id).values()) - 1
            raise StudyError(f"study {study!r} has trials 0 to {last}, none with number {number}")
        events = tuple(story(stored.engine, stored.study_id, trial_id))
        kind = stored.spec.kind
        (checked,) = read_checked(stored.storage, stored.study_id, kind, number)
        return TrialStory(
            trial=TrialResult.of(read_trial(checked.trial, kind, checked.foreign)),
            events=events,
            num_workers=len({event.worker for event in events if event.kind == "claimed"}),
            epochs_repeated=_epochs_repeated(events),
            mixtures=read_mixtures(stored),
        )


def _epochs_repeated(events: tuple[Event, ...]) -> int:
    """Count the epochs between where an attempt was and where the next one began."""
    repeated, furthest = 0, 0
    for event in events:
        if event.kind in ("resumed", "restarted"):
            repeated += max(0, furthest - event.epochs)
            furthest = event.epochs
        furthest = max(furthest, event.epochs)
    return repeated


def read_progress(stored: StoredStudy, *, mixed: tuple[str, ...] = ()) -> Progress:
    """Read where an opened study stands, in a few small queries.

    Args:
        stored: The study.
        mixed: What its trials should have in common and have not, for who has looked.
    """
    counts = {
        STATE_NAMES[state]: number
        for state, number in leases.counts(stored.engine, stored.study_id).items()
    }
    holders = leases.holders(stored.engine, stored.study_id)
    with stored.engine.connect() as connection:
        steps = _finished_epochs(connection, [holder["trial_id"] for holder in holders])
        best = best_so_far(connection, stored.study_id)
        elsewhere = count_foreign(connection, stored.study_id)
        workers = tuple(_worker_status(holder, steps) for holder in holders)
        pace = read_pace(
            connection,
            stored.study_id,
            stored.spec,
            waiting=counts["waiting"],
            in_hand={
                holder["trial_id"]: InHand(worker.epochs, worker.seconds, worker.attempt)
                for holder, worker in zip(holders, workers, strict=True)
            },
        )
    return Progress(
        kind=stored.spec.kind,
        mixed=mixed,
        study=stored.study.study_name,
        description=stored.spec.description,
        counts=counts,
        num_trials=sum(counts.values()),
        epochs_per_trial=stored.spec.budget.epochs,
        best_trial=best[0] if best else None,
        best_value=best[1] if best else None,
        evaluates=stored.spec.kind.source,
        workers=workers,
        foreign_counts={STATE_NAMES[state]: number for state, number in elsewhere.items()},
        pace_so_far=pace,
        # Who reads it may rely on that it comes of whole trials.
        eta_s=time_left([pace]) if pace.ended or not (counts["waiting"] or workers) else None,
        paused=paused_reason(stored.engine, stored.study_id),
    )


def _worker_status(holder: dict[str, Any], steps: dict[int, int]) -> WorkerStatus:
    return WorkerStatus(
        host=holder["host"],
        pid=holder["pid"],
        device=holder["device"],
        trial=holder["number"],
        attempt=holder["attempt"],
        epochs=steps.get(holder["trial_id"], 0),
        seconds=float(holder["held_s"]),
        silent_s=float(holder["silent_s"]),
    )


def _finished_epochs(connection: sa.Connection, trial_ids: list[int]) -> dict[int, int]:
    query = (
        sa.select(schema.steps.c.trial_id, sa.func.max(schema.steps.c.step))
        .where(schema.steps.c.trial_id.in_(trial_ids))
        .group_by(schema.steps.c.trial_id)
    )
    return {trial_id: step + 1 for trial_id, step in connection.execute(query).all()}
