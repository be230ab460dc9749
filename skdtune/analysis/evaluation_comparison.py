"""From the names of evaluated studies to their comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from skdtune.analysis.comparison import compare_studies
from skdtune.analysis.evaluated import Comparison, EvaluatedStudy
from skdtune.analysis.evaluation_results import evaluation_results
from skdtune.describe.method_config import PLAIN_LABEL
from skdtune.errors import StudyError
from skdtune.queue.stored_study import expand_family


def compare_evaluations(
    studies: Sequence[str], *, baseline: str | None = None, storage: str | None = None
) -> Comparison:
    """Compare the winners of several evaluated studies with a baseline, seed by seed.

    Args:
        studies: Names of studies, of their evaluations, or of families of studies.
        baseline: What the others are held against; default the first study with plain
            cross-entropy, else the first.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.

    Raises:
        StudyError: If a study is missing, not evaluated, or was tested on other images.
        StorageError: If the storage cannot be used.
    """
    named = [*studies, *([baseline] if baseline else [])]
    names = dict.fromkeys(
        name for study in named for name in expand_family(study, storage=storage)
    )
    winners = {name: winner(name, storage=storage) for name in names}
    return compare_winners(winners, baseline=baseline)


def compare_winners(
    winners: Mapping[str, EvaluatedStudy], *, baseline: str | None = None
) -> Comparison:
    """Compare evaluations that were read already; see `compare_evaluations`.

    Args:
        winners: The winner of each study, by the name that it was asked for.
        baseline: One of these names, a study or a method.

    Raises:
        StudyError: If they cannot be compared.
    """
    against = winners.get(baseline) if baseline else None
    return compare_studies(
        list({study.study: study for study in winners.values()}.values()),
        baseline=against.study if against else baseline or _default_baseline(winners.values()),
    )


def winner(study: str, *, storage: str | None = None) -> EvaluatedStudy:
    """Return the evaluation of a study's best candidate of the search.

    Which candidate tests best must not matter: it would be chosen by the test images.

    Raises:
        StudyError: If there is no such study, or nothing of it was evaluated yet.
        StorageError: If the storage cannot be used.
    """
    results = evaluation_results(study, storage=storage)
    best = results.candidates[0]
    if not best.seeds:
        raise StudyError(
            f"study {results.name!r} has no complete training yet: skdtune launch {results.name}"
        )
    return best


def _default_baseline(winners: Iterable[EvaluatedStudy]) -> str:
    studies = list(winners)
    plain = [study.study for study in studies if study.method == PLAIN_LABEL]
    return plain[0] if plain else studies[0].study
