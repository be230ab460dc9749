"""One trial of a study, chosen to be trained again without it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from skdtune.analysis.study_record import StudyRecord, read_study
from skdtune.analysis.trial_record import TrialRecord
from skdtune.analysis.without_result import describe_no_result, is_without_result
from skdtune.describe.config import TrialConfig
from skdtune.describe.data_source import DataSource
from skdtune.errors import StudyError
from skdtune.queue.pinned_source import read_pins
from skdtune.queue.stored_study import load_study


@dataclass(frozen=True, kw_only=True)
class ChosenTrial:
    """What a trial trained, and on what."""

    study: str
    """Name of its study."""

    number: int
    config: TrialConfig
    """Its full configuration, with the seed that it was trained with."""

    spec_hash: str
    """Hash of the study's spec."""

    source: DataSource | None
    """What the study's training images come from; None before a trial of it was taken."""


def chosen_trial(
    study: str, number: int | None = None, *, storage: str | None = None
) -> ChosenTrial:
    """Read a trial of a study; the storage is only read.

    Args:
        study: Name of the study.
        number: Number of the trial; default the best one, as `skdtune best` says.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Raises:
        StudyError: If there is no such study or trial, or it has no parameters yet.
        StorageError: If the storage cannot be used.
    """
    with contextlib.closing(load_study(study, storage=storage)) as stored:
        record = read_study(stored)
        pins = read_pins(stored.engine, stored.study_id, study)
    trial = _best(record) if number is None else _numbered(record, number)
    return ChosenTrial(
        study=record.name,
        number=trial.number,
        config=record.spec.trial_config(trial.params, trial.number),
        spec_hash=record.digest,
        source=pins.get("train"),
    )


def _best(record: StudyRecord) -> TrialRecord:
    record.spec.kind.require_picking(record.name)
    if record.best is None:
        if is_without_result(record):
            raise StudyError(describe_no_result(record))
        raise StudyError(
            f"study {record.name!r} has no complete trial yet: skdtune status {record.name}"
        )
    return record.best


def _numbered(record: StudyRecord, number: int) -> TrialRecord:
    trial = next((trial for trial in record.listed if trial.number == number), None)
    if trial is None:
        raise StudyError(
            f"study {record.name!r} has no trial {number}, it has {len(record.listed)} trials"
        )
    if trial.foreign:
        raise StudyError(f"trial {number} of {record.name!r} is foreign: {trial.foreign}")
    if trial.state == "waiting" and not trial.params:
        raise StudyError(f"trial {number} of {record.name!r} waits, and has no parameters yet")
    return trial
