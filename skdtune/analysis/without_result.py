"""A study that ended without a single complete trial: why, and what can be done."""

from __future__ import annotations

from collections import Counter

from skdtune.analysis.study_record import StudyRecord, read_study
from skdtune.queue.best_trial import best_so_far
from skdtune.queue.stored_study import StoredStudy

_PRUNED = "pruned"

#: What happened, by the kind of a failure, and what a person may change.
_REMEDIES = {
    "nan": (
        "ended with a loss that was not finite",
        "make one with smaller learning rates (optimizer.lr) or model.precision=float32",
    ),
    "oom": (
        "ran out of memory",
        "make one with a smaller data.batch_size, or start fewer workers per GPU",
    ),
    "timeout": (
        "ran out of time",
        "make one with a longer faults.max_trial_seconds and faults.max_epoch_seconds",
    ),
    _PRUNED: (
        "were pruned",
        "make one with pruner.name=none, or with a pruner that judges later",
    ),
}
_OTHER = ("failed", "mend what they failed of")


def read_no_result(stored: StoredStudy) -> str | None:
    """Say that an opened study is over and has nothing to show; reads its trials only then.

    Returns:
        How they ended and what to do, in one line; None if a trial is complete, or may be yet.
    """
    with stored.engine.connect() as connection:
        if best_so_far(connection, stored.study_id) is not None:
            return None
    study = read_study(stored)
    return describe_no_result(study) if is_without_result(study) else None


def is_without_result(study: StudyRecord) -> bool:
    """Tell whether a study is over and has nothing to show."""
    begun = bool(study.trials or study.foreign)
    return begun and not study.ranked and all(t.is_over for t in study.trials)


def describe_no_result(study: StudyRecord) -> str:
    """Say in one line how the trials ended, and what to do.

    Args:
        study: One that is over, without a complete trial.
    """
    if not study.trials:
        return (
            f"study {study.name!r} has no complete trial of skdtune's, and none is left: foreign "
            f"ones count nowhere; `skdtune trials {study.name}` says why"
        )
    kinds = Counter(
        trial.failure_kind or (_PRUNED if trial.state == "pruned" else "error")
        for trial in study.trials
    )
    ways = Counter(_REMEDIES.get(kind, _OTHER) for kind in kinds.elements())
    counted = ", ".join(f"{number} {what}" for (what, _), number in ways.most_common())
    (_, remedy), _ = ways.most_common(1)[0]
    first = study.trials[0].number
    return (
        f"study {study.name!r} has no complete trial, and none is left: "
        f"{counted}; {remedy}; `skdtune explain {study.name} {first}` tells of one"
    )
