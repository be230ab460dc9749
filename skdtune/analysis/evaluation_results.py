"""Read-only views of final evaluations: the seeds of every candidate, and what they sum up to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skdtune.analysis.evaluated import EvaluatedSeed, EvaluatedStudy
from skdtune.analysis.mixture import mixtures
from skdtune.analysis.study_record import read_study
from skdtune.analysis.trial_record import TrialRecord, read_trial
from skdtune.describe import dotted
from skdtune.describe.config import MethodConfig, ModelConfig
from skdtune.describe.kinds.final_evaluation import EvaluationConfig, FinalEvaluation
from skdtune.describe.kinds.search import Search
from skdtune.describe.method_config import PLAIN_LABEL
from skdtune.describe.spec import StudySpec
from skdtune.errors import StudyError
from skdtune.queue.final_evaluation import find_evaluation
from skdtune.queue.foreign_trials import read_own
from skdtune.queue.stored_study import StoredStudy, find_lineage, load_study


@dataclass(frozen=True, kw_only=True)
class MissingSeed:
    """A training of an evaluation that gave no score."""

    trial: int
    """Number in the evaluation."""

    candidate_trial: int
    """Number in the study that was searched."""

    seed_index: int
    state: str
    """waiting, running, pruned (its loss became non-finite) or failed."""

    reason: str
    """Why it failed, in one line; empty while it did not."""

    @property
    def failed(self) -> bool:
        """It has ended, and will not be tried again."""
        return self.state in ("pruned", "failed")


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """A final evaluation as it stands."""

    name: str
    spec: StudySpec
    digest: str
    """Hash of the spec as it was created; a new name does not change it."""

    evaluation: EvaluationConfig
    candidates: tuple[EvaluatedStudy, ...]
    """In the order of their rank in the search; each with the seeds that are there."""

    missing: tuple[MissingSeed, ...]
    devices: tuple[str, ...]
    """Where the trainings ran."""

    seeds: Mapping[int, int]
    """Seed of the trainings by index, of those that were begun."""

    mixtures: tuple[str, ...] = ()
    """What the trials of its search, or its trainings, should have in common and have not."""

    @property
    def failed(self) -> tuple[MissingSeed, ...]:
        """The seeds that failed for good."""
        return tuple(seed for seed in self.missing if seed.failed)

    @property
    def finished(self) -> bool:
        """No training is left."""
        return all(seed.failed for seed in self.missing)


def evaluated(study: str, *, storage: str | None = None) -> list[EvaluatedStudy]:
    """Read the final evaluation of a study.

    Args:
        study: Name of the study that was searched, or of its evaluation.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Returns:
        One entry for each candidate, the best one of the search first.

    Raises:
        StudyError: If there is no such study, or it has no final evaluation.
        StorageError: If the storage cannot be used.
    """
    return list(evaluation_results(study, storage=storage).candidates)


def evaluation_results(study: str, *, storage: str | None = None) -> EvaluationResults:
    """Read a final evaluation with the seeds that are missing; arguments as in `evaluated`.

    Raises:
        StudyError: If there is no such study, or it has no final evaluation.
        StorageError: If the storage cannot be used.
    """
    with contextlib.closing(load_study(study, storage=storage)) as stored:
        if isinstance(stored.spec.kind, FinalEvaluation):
            return read_evaluation(stored, stored.spec.kind.settings)
        name = find_evaluation(stored)
        if name is None:
            raise StudyError(f"study {study!r} has no final evaluation: skdtune evaluate {study}")
    return evaluation_results(name, storage=storage)


def read_evaluation(stored: StoredStudy, evaluation: EvaluationConfig) -> EvaluationResults:
    """Read an opened final evaluation."""
    study = read_study(stored)
    # A foreign one took the place of a training, which is missing then.
    trials, searched = study.listed, _searched(stored, evaluation)
    cost = _search_cost(searched)
    mixed = (
        *_other_length(stored.spec, evaluation),
        *mixtures(evaluation.source, searched or ()),
        *mixtures(study.name, study.trials),
    )
    return EvaluationResults(
        name=stored.spec.name,
        spec=stored.spec,
        digest=stored.digest,
        evaluation=evaluation,
        candidates=tuple(
            _candidate(stored, evaluation, index, trials, cost | {"mixed": mixed})
            for index in range(len(evaluation.trials))
        ),
        missing=tuple(_missing(trial, evaluation) for trial in trials if not _is_evaluated(trial)),
        devices=_distinct(trial.device for trial in trials if not trial.foreign),
        seeds={
            evaluation.place(trial.number)[1]: trial.seed
            for trial in trials
            if trial.seed is not None and not trial.foreign
        },
        mixtures=mixed,
    )


def _other_length(spec: StudySpec, evaluation: EvaluationConfig) -> tuple[str, ...]:
    """Say that the trainings are longer, or shorter, than the trials that won the search."""
    if evaluation.search_epochs is None:
        return ()
    return (
        f"{spec.name}: each training has {spec.budget.epochs} epochs, a trial of its search had "
        f"{evaluation.search_epochs}.",
    )


def _is_evaluated(trial: TrialRecord) -> bool:
    return trial.state == "complete" and trial.test is not None and not trial.foreign


def method_name(method: MethodConfig) -> str:
    """Name a method by its terms: ``drg+dsr``, or the label term where that is all."""
    others = [name for name in method.terms() if name != "label"]
    label = [method.label.name] if method.label.name != PLAIN_LABEL or not others else []
    return "+".join([*label, *others])


def _candidate(
    stored: StoredStudy,
    evaluation: EvaluationConfig,
    index: int,
    trials: Sequence[TrialRecord],
    cost: Mapping[str, Any],
) -> EvaluatedStudy:
    spec = stored.spec
    config = spec.trial_config({}, index)
    own = [trial for trial in trials if evaluation.place(trial.number)[0] == index]
    ours = [trial for trial in own if not trial.foreign]
    missing = [_missing(trial, evaluation) for trial in own if not _is_evaluated(trial)]
    prints = {trial.test.fingerprint for trial in own if _is_evaluated(trial) and trial.test}
    return EvaluatedStudy(
        study=evaluation.source,
        method=method_name(config.method),
        candidate_trial=evaluation.trials[index],
        seeds=tuple(
            EvaluatedSeed(
                seed_index=evaluation.place(trial.number)[1],
                seed=trial.seed or 0,
                accuracy=trial.test.accuracy,
                top5=trial.test.top5,
                ece=trial.test.ece,
                nll=trial.test.nll,
                images=trial.images or 0,
                seconds=trial.train_seconds or 0.0,
                peak_memory_mb=trial.peak_memory_mb,
                trial=trial.number,
            )
            for trial in own
            if _is_evaluated(trial) and trial.test is not None
        ),
        # More than one if the data changed meanwhile: then it agrees with no other study.
        data_fingerprint="+".join(sorted(prints)),
        network=_network(config.model, ours),
        settings=_settings(spec, evaluation),
        devices=_distinct(trial.device for trial in ours),
        computed_by=_distinct(trial.kernels for trial in ours),
        num_failed=sum(seed.failed for seed in missing),
        num_left=sum(not seed.failed for seed in missing),
        has_teacher=bool(config.method.teachers),
        epochs=config.budget.epochs,
        digest=stored.digest,
        versions=_joined([trial.versions for trial in ours]),
        **cost,
    )


def _network(model: ModelConfig, trials: Sequence[TrialRecord]) -> str:
    """Name a network with all that makes another one of it."""
    width = "" if model.width is None else f" of width {model.width}"
    precision = " and ".join(_distinct(trial.precision for trial in trials)) or model.precision
    return f"{model.name}{width}, {precision}"


def _settings(spec: StudySpec, evaluation: EvaluationConfig) -> dict[str, str]:
    """List what the study fixed beside the method: data, recipe, and what it is scored on."""
    searched = {path for params in evaluation.params for path in params}
    sections = {"data", "optimizer"}
    flat = dotted.flatten(spec.base_config().model_dump(mode="json", include=sections))
    apart = {"data.root", "data.download"} | searched
    return {path: str(value) for path, value in flat.items() if path not in apart}


def _joined(versions: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Join the versions of several trainings; normally all are the same."""
    names = sorted({name for each in versions for name in each})
    return {
        name: " and ".join(sorted({each[name] for each in versions if name in each}))
        for name in names
    }


def _missing(trial: TrialRecord, evaluation: EvaluationConfig) -> MissingSeed:
    candidate, seed_index = evaluation.place(trial.number)
    is_complete = trial.state == "complete"
    reason = trial.failure_reason or ""
    if trial.foreign:
        again = "; skdtune storage reap --foreign gives it back" if not trial.is_over else ""
        reason = f"{trial.foreign}{again}"
    elif is_complete:
        reason = "it is complete without scores: it was ended from outside"
    return MissingSeed(
        trial=trial.number,
        candidate_trial=evaluation.trials[candidate],
        seed_index=seed_index,
        state="failed" if is_complete else trial.state,
        reason=reason,
    )


def _distinct(texts: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text is not None))


def _searched(stored: StoredStudy, evaluation: EvaluationConfig) -> list[TrialRecord] | None:
    """Read the trials of the search that have ended; None if it was deleted, or made anew."""
    try:
        source_id = stored.storage.get_study_id_from_name(evaluation.source)
    except KeyError:
        return None
    if find_lineage(stored.engine, source_id) != evaluation.lineage:
        return None
    trials = read_own(stored.storage, source_id, Search())
    return [read_trial(trial, Search()) for trial in trials if trial.state.is_finished()]


def _search_cost(searched: Sequence[TrialRecord] | None) -> dict[str, Any]:
    """Add up what the search took; unknown where its trials are."""
    if searched is None:
        return {"search_images": None, "search_seconds": None, "num_search_trials": None}
    return {
        "search_images": sum(trial.images or 0 for trial in searched),
        "search_seconds": sum(trial.train_seconds or 0.0 for trial in searched),
        "num_search_trials": len(searched),
    }
