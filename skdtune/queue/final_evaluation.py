"""The final evaluation of a study: a study of its own that trains the winners and tests them.

Its trials are the candidates, each with several seeds. They learn from training and validation
images together and are scored on the test images once, after their last epoch. Being trials, they
are queued, claimed, checkpointed and resumed as all others are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from skdtune.describe.kinds.catalogue import settings_of
from skdtune.describe.kinds.final_evaluation import (
    EvaluationConfig,
    FinalEvaluation,
    evaluation_name,
)
from skdtune.describe.spec import StudySpec, parse
from skdtune.errors import StudyError
from skdtune.queue import leases
from skdtune.queue.best_trial import best_first
from skdtune.queue.foreign_trials import count_foreign, read_own
from skdtune.queue.pinned_source import inherit_pin
from skdtune.queue.stored_study import (
    RawStudy,
    StoredStudy,
    create_study,
    load_study,
    raw_studies,
    study_names,
)
from skdtune.queue.trial_budget import set_budget

DEFAULT_SEEDS = 5


def create_evaluation(
    study: str,
    *,
    top: int | None = None,
    num_seeds: int | None = None,
    name: str | None = None,
    now: bool = False,
    storage: str | None = None,
) -> str:
    """Queue the final evaluation of a study, with trainings as long as its trials were.

    Arguments, result and errors are those of `queue_evaluation`.
    """
    return queue_evaluation(
        study, top=top, num_seeds=num_seeds, name=name, now=now, storage=storage
    )


def queue_evaluation(
    study: str,
    *,
    top: int | None = None,
    num_seeds: int | None = None,
    epochs: int | None = None,
    name: str | None = None,
    now: bool = False,
    storage: str | None = None,
) -> str:
    """Queue the final evaluation of a study, or more seeds of one that is there.

    Args:
        study: Name of the study that was searched.
        top: Best complete trials to evaluate; default 1, or as many as the evaluation has.
        num_seeds: Trainings of each; default 5, or as many as the evaluation has. One that has
            more keeps them.
        epochs: Epochs of each training; default as many as the trials of the study have, or as
            the evaluation has.
        name: Name of the evaluation; default that of the one there is, else ``<study>.test``.
        now: Evaluate a study some of whose trials are not finished.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Returns:
        The name of the evaluation.

    Raises:
        StudyError: If the study cannot be evaluated, or the name is that of something else;
            nothing was changed.
        StorageError: If the storage cannot be used.
    """
    with contextlib.closing(load_study(study, storage=storage)) as source:
        _require_evaluable(source, now)
        name = name or find_evaluation(source) or evaluation_name(study)
        if name not in study_names(source.storage):
            spec = evaluation_spec(source, name, top or 1, num_seeds or DEFAULT_SEEDS, epochs)
            create_study(spec, storage=storage)
            return name
        with contextlib.closing(load_study(name, storage=storage)) as evaluated:
            _extend(source, evaluated, top, num_seeds, epochs)
    return name


def require_evaluable(study: str, *, now: bool = False, storage: str | None = None) -> None:
    """Refuse a study that cannot be evaluated, before anything is changed.

    Args:
        study: Name of the study that was searched.
        now: Some of its trials may be unfinished.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Raises:
        StudyError: If it is not finished, has no complete trial, or is an evaluation itself.
        StorageError: If the storage cannot be used.
    """
    with contextlib.closing(load_study(study, storage=storage)) as source:
        _require_evaluable(source, now)
        best_trials(source, 1)


def find_evaluation(source: StoredStudy) -> str | None:
    """Return the name of the evaluation that a study has unless another one is named.

    It is the one that was made under the usual name, whatever it and the study are called now.

    Args:
        source: The study that was searched.
    """
    with source.engine.connect() as connection:
        every = evaluations_of(raw_studies(connection), [source.lineage])
    names = [one.name for one in every if _has_usual_name(one)]
    usual = evaluation_name(source.spec.name)
    return usual if usual in names else next(iter(names), None)


def evaluations_of(studies: Iterable[RawStudy], lineages: Collection[str]) -> list[RawStudy]:
    """Return the final evaluations of some studies, by the tokens of these."""
    return [one for one in studies if settings_of(one.raw).get("lineage") in lineages]


def _has_usual_name(study: RawStudy) -> bool:
    """Tell whether an evaluation was made under the usual name."""
    return study.raw.get("name") == evaluation_name(str(settings_of(study.raw).get("source")))


def evaluation_spec(
    source: StoredStudy, name: str, top: int, num_seeds: int, epochs: int | None = None
) -> StudySpec:
    """Write the spec of an evaluation: the base of the study, and its best trials.

    Args:
        source: The study that was searched.
        name: Name of the evaluation.
        top: Candidates.
        num_seeds: Trainings of each.
        epochs: Epochs of a training; default as many as the trials of the study have.

    Raises:
        StudyError: If the study has fewer complete trials.
        SpecError: If the name is none, or the settings do not allow so few epochs.
    """
    candidates = best_trials(source, top)
    searched = source.spec.budget.epochs
    is_other = epochs is not None and epochs != searched
    evaluation = EvaluationConfig(
        source=source.spec.name,
        lineage=source.lineage,
        digest=source.digest,
        trials=tuple(trial.number for trial in candidates),
        params=tuple(dict(trial.params) for trial in candidates),
        search_epochs=searched if is_other else None,
    )
    unfit = {"sampler", "objective", "enqueue", "family"}
    raw = source.spec.model_dump(mode="json", exclude=unfit)
    raw |= {
        "name": name,
        "description": f"Final evaluation of {source.spec.name} on the test images",
        "search": {},
        "pruner": {"name": "none"},
        "num_trials": len(candidates) * num_seeds,
        "evaluation": evaluation.model_dump(mode="json"),
    }
    if is_other:
        # Whatever the search's were derived from.
        raw["budget"] = {"epochs": epochs}
    spec = parse(StudySpec, raw, f"evaluation of {source.spec.name}")
    for number in range(len(candidates)):
        # A candidate that the settings of today refuse must not be found out by a worker.
        spec.trial_config({}, number)
    return spec


def best_trials(source: StoredStudy, top: int) -> list[FrozenTrial]:
    """Return the best complete trials of a study, the best first; the lower number wins a tie.

    Raises:
        StudyError: If there are not so many.
    """
    trials = read_own(source.storage, source.study_id, source.spec.kind)
    ranked = best_first(trial for trial in trials if trial.state is TrialState.COMPLETE)
    name = source.spec.name
    if not ranked:
        raise StudyError(f"study {name!r} has no complete trial to evaluate: skdtune best {name}")
    if len(ranked) < top:
        raise StudyError(
            f"study {name!r} has {len(ranked)} complete trials, and the best {top} are asked for"
        )
    return ranked[:top]


def _require_evaluable(source: StoredStudy, now: bool) -> None:
    name = source.spec.name
    source.spec.kind.require_evaluable(name)
    counts = leases.counts(source.engine, source.study_id)
    with source.engine.connect() as connection:
        elsewhere = count_foreign(connection, source.study_id).get(TrialState.RUNNING, 0)
    left = counts[TrialState.WAITING] + counts[TrialState.RUNNING] - elsewhere
    if left and not now:
        raise StudyError(
            f"study {name!r} is not finished: {left} of its trials wait or run; "
            f"skdtune launch {name}, or evaluate the best so far with --now"
        )


def _extend(
    source: StoredStudy,
    evaluated: StoredStudy,
    top: int | None,
    num_seeds: int | None,
    epochs: int | None,
) -> None:
    """Queue the seeds that an evaluation lacks, if it is one of the same candidates."""
    name, kind = evaluated.spec.name, evaluated.spec.kind
    is_ours = kind.source_lineage == source.lineage
    if not isinstance(kind, FinalEvaluation) or not (is_ours or kind.source == source.spec.name):
        raise StudyError(
            f"study {name!r} exists and is no final evaluation of {source.spec.name}; "
            "choose another --name"
        )
    evaluation = kind.settings
    if not is_ours:
        raise StudyError(
            f"study {name!r} evaluates an earlier study of the name {source.spec.name}; "
            "choose another --name"
        )
    has = evaluated.spec.budget.epochs
    if epochs is not None and epochs != has:
        raise StudyError(
            f"study {name!r} trains for {has} epochs, not {epochs}; choose another --name"
        )
    wanted = tuple(trial.number for trial in best_trials(source, top or len(evaluation.trials)))
    if evaluation.trials != wanted:
        raise StudyError(
            f"study {name!r} evaluates {_trials(evaluation.trials)} of {source.spec.name}, not "
            f"{_trials(wanted)}, as is asked for; choose another --name"
        )
    with evaluated.engine.begin() as connection:
        # One of an earlier release has none, or its search was pinned later.
        inherit_pin(connection, evaluated.spec, evaluated.study_id)
    num_trials = len(wanted) * (num_seeds or 0)
    if num_trials > sum(leases.counts(evaluated.engine, evaluated.study_id).values()):
        set_budget(evaluated.engine, evaluated.study_id, num_trials)


def _trials(numbers: Sequence[int]) -> str:
    noun = "trial" if len(numbers) == 1 else "trials"
    return f"{noun} {', '.join(map(str, numbers))}"
