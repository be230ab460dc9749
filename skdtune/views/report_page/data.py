"""Read what the report shows from a study; what others wrote into the storage is checked first."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skdtune.queue.stored_study import StoredStudy, load_study
from skdtune.results.study_results import StudyResults, TrialResult, read_results
from skdtune.views.report_page.importance import importance_of
from skdtune.views.report_page.records import Profile, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

#: System attribute with what a trial recorded epoch by epoch; the reporter writes it.
CURVES_ATTRIBUTE = "skdtune:curves"
#: System attribute with the ranked outputs after the first and the last epoch.
PROFILE_ATTRIBUTE = "skdtune:profile"

MAX_RANKS = 100

#: User attributes that say where and with what a trial ran, and how the report calls them.
FACTS = {
    "device": "device",
    "precision": "precision",
    "kernels": "kernels",
    "threads": "threads",
    "versions": "versions",
    "data_fingerprint": "data fingerprint",
    "num_val_images": "validation images",
    "num_test_images": "test images",
    "spec_hash": "spec",
}


def read_studies(names: Sequence[str], *, storage: str | None = None) -> tuple[StudyRecord, ...]:
    """Read studies by name, in the order given; a name that comes twice is read once.

    Args:
        names: Names of the studies.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Raises:
        StudyError: If there is no such study.
        StorageError: If the storage cannot be used.
    """
    records = []
    for name in dict.fromkeys(names):
        with contextlib.closing(load_study(name, storage=storage)) as stored:
            records.append(read_study(stored))
    return tuple(records)


def read_study(stored: StoredStudy) -> StudyRecord:
    """Read an opened study with all its trials."""
    results = read_results(stored)
    frozen = {trial.number: trial for trial in stored.study.get_trials(deepcopy=False)}
    trials = tuple(_record(result, frozen[result.number]) for result in results.trials)
    kind = stored.spec.kind
    best = results.best if kind.picks_best else None
    importance, note = importance_of(stored.study, stored.spec) if kind.picks_best else ({}, "")
    return StudyRecord(
        spec=stored.spec,
        trials=trials,
        best=next((t for t in trials if best is not None and t.number == best.number), None),
        value_name=kind.metric_name,
        curve_name=kind.step_name,
        num_images=results.num_val_images,
        standard_errors=_standard_errors(results),
        importance=importance,
        importance_note=note,
    )


def _standard_errors(results: StudyResults) -> dict[int, float]:
    """Return the standard errors of the two trials that are shown apart."""
    shown = [trial for trial in (results.best, results.default) if trial is not None]
    errors = {
        trial.number: results.standard_error(trial.value)
        for trial in shown
        if trial.value is not None and 0 <= trial.value <= 1
    }
    return {number: error for number, error in errors.items() if error is not None}


def _record(result: TrialResult, trial: FrozenTrial) -> TrialRecord:
    ended = trial.datetime_complete
    value = number(result.value)
    return TrialRecord(
        number=result.number,
        state=result.state,
        value=value,
        params=result.params,
        curve=tuple(
            (step + 1, reported)
            for step, reported in sorted(trial.intermediate_values.items())
            if step >= 0 and number(reported) is not None
        ),
        ended_at=ended.timestamp() if ended is not None else None,
        images=_whole(trial.user_attrs.get("images")),
        seconds=_device_seconds(result, trial),
        profile=read_profile(trial.system_attrs.get(PROFILE_ATTRIBUTE)),
        failure_kind=_text(result.failure_kind),
        failure_reason=_text(result.failure_reason),
        facts={
            name: described
            for key, name in FACTS.items()
            if (described := _described(trial.user_attrs.get(key)))
        },
    )


def _device_seconds(result: TrialResult, trial: FrozenTrial) -> float | None:
    """Return the time of its epochs; where no epoch was timed, the time that it was in hand."""
    seconds = number(trial.user_attrs.get("train_seconds"))
    if seconds is not None:
        return seconds
    curves = trial.system_attrs.get(CURVES_ATTRIBUTE)
    epochs = curves.get("epoch_seconds") if isinstance(curves, Mapping) else None
    timed = [number(value) for value in epochs] if isinstance(epochs, list) else []
    if timed:
        return sum(value for value in timed if value is not None)
    return number(result.seconds)


def read_profile(stored: Any) -> Profile | None:
    """Read the ranked outputs of a trial; None if there are none, or they are no such thing.

    Args:
        stored: ``{"first": [p1, p2, ...], "last": [...]}``, shares from the largest on.
    """
    if not isinstance(stored, Mapping):
        return None
    first, last = (_shares(stored.get(key)) for key in ("first", "last"))
    return Profile(first=first, last=last) if first and last else None


def _shares(stored: Any) -> tuple[float, ...]:
    if not isinstance(stored, list):
        return ()
    numbers = [number(value) for value in stored[:MAX_RANKS]]
    return tuple(value for value in numbers if value is not None)


def number(value: Any) -> float | None:
    """Return a finite number as it is, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        plain = float(value)
    except OverflowError:
        return None
    return plain if math.isfinite(plain) else None


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _described(value: Any) -> str:
    """Write an attribute for people: versions as a list of names and numbers."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {what}" for key, what in value.items())
    return "" if value is None else str(value)
