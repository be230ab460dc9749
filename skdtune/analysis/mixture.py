"""What the trials of a study should have in common to be compared, and have not.

Trials that learned from different images must not be ranked together. A study is pinned to its
data, but one of an earlier release may have trials of both. Kernels, precision and kinds of device
change the last digits of every number: it is said, and no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from optuna.trial import TrialState

from skdtune.analysis.study_record import read_study
from skdtune.analysis.trial_record import TrialRecord
from skdtune.describe.data_config import OF_BATCHES
from skdtune.queue import schema, trial_attributes
from skdtune.queue.stored_study import StoredStudy

_COMPARED = (TrialState.COMPLETE, TrialState.PRUNED)

_WATCHED = (
    trial_attributes.SOURCE,
    trial_attributes.DATA_FINGERPRINT,
    trial_attributes.KERNELS,
    trial_attributes.PRECISION,
    trial_attributes.DEVICE,
)


def mixtures(study: str, trials: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Say, in a sentence each, what the complete and pruned trials of a study mix.

    Args:
        study: Name of the study.
        trials: Its trials; what one does not tell counts as nothing.
    """
    compared = [trial for trial in trials if trial.state in ("complete", "pruned")]
    said = (_mixed_data(study, compared), _mixed_arithmetic(study, compared))
    return tuple(sentence for sentence in said if sentence is not None)


def read_mixtures(stored: StoredStudy) -> tuple[str, ...]:
    """Say what the trials of an opened study mix; reads all of them only if something differs."""
    user, trials = schema.trial_user_attributes, schema.trials
    query = (
        sa.select(user.c.key, user.c.value_json)
        .join(trials, trials.c.trial_id == user.c.trial_id)
        .where(
            trials.c.study_id == stored.study_id,
            trials.c.state.in_(_COMPARED),
            user.c.key.in_(_WATCHED),
        )
        .distinct()
    )
    with stored.engine.connect() as connection:
        found = {(key, _without_index(value)) for key, value in connection.execute(query).all()}
    if len(found) == len({key for key, _ in found}):
        return ()
    record = read_study(stored)
    return mixtures(record.name, record.trials)


def _mixed_data(study: str, trials: Sequence[TrialRecord]) -> str | None:
    sources = Counter(trial.source for trial in trials if trial.source is not None)
    if len(sources) > 1:
        return (
            f"The trials of {study} learned from different images ({_counted(sources)}): their "
            "values must not be compared; create a new study."
        )
    # Whatever the settings of the trials explain is no mixture: each size has images of its own.
    by_settings: dict[frozenset[tuple[str, str]], Counter[str]] = {}
    for trial in trials:
        if trial.data_fingerprint is not None:
            counter = by_settings.setdefault(_image_settings(trial), Counter())
            counter[trial.data_fingerprint] += 1
    for prints in by_settings.values():
        if len(prints) > 1 and all(trial.source is not None for trial in trials):
            return (
                f"The trials of {study} decoded the same files to different pixels "
                f"({_counted(prints)}): another version of Pillow does that, and values that lie "
                "close together may differ by that alone."
            )
        if len(prints) > 1:
            return (
                f"The trials of {study} learned from, or were judged on, different images "
                f"({_counted(prints)}): their values must not be compared; create a new study."
            )
    return None


def _image_settings(trial: TrialRecord) -> frozenset[tuple[str, str]]:
    """Return those settings of a trial, of what trials differ in, that decide its images."""
    return frozenset(
        (path, str(value))
        for path, value in trial.params.items()
        if path.startswith("data.") and path.removeprefix("data.") not in OF_BATCHES
    )


def _mixed_arithmetic(study: str, trials: Sequence[TrialRecord]) -> str | None:
    is_searched = any("model.precision" in trial.params for trial in trials)
    ways: dict[str, Callable[[TrialRecord], str | None]] = {
        "kernels": lambda trial: trial.kernels,
        "devices": lambda trial: _kind_of(trial.device),
        "precision": lambda trial: None if is_searched else trial.precision,
    }
    counted = {
        way: Counter(value for trial in trials if (value := read(trial)) is not None)
        for way, read in ways.items()
    }
    mixed = [f"{way}: {_counted(each)}" for way, each in counted.items() if len(each) > 1]
    if not mixed:
        return None
    return (
        f"The trials of {study} were not computed alike ({'; '.join(mixed)}): values that lie "
        "close together may differ by that alone."
    )


def _kind_of(device: str | None) -> str | None:
    return None if device is None else device.partition(" ")[0].partition(":")[0]


def _without_index(value: str) -> str:
    """Return a stored attribute; of a device its kind, because several GPUs are no mixture."""
    return '"cuda' if value.startswith('"cuda:') else value


def _counted(values: Counter[str]) -> str:
    # A row of somebody else's may hold anything.
    return ", ".join(f"{value:.40} in {number}" for value, number in values.most_common())
