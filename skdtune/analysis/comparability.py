"""What differs between evaluated studies beside the method; it is said below a comparison."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

from skdtune.analysis.evaluated import EvaluatedStudy
from skdtune.analysis.tables import format_count

BUDGET_TOLERANCE = 0.05
"""Relative; budgets further apart than this are said to differ."""


def differences(ordered: Mapping[str, EvaluatedStudy], baseline: str) -> tuple[str, ...]:
    """Return one sentence for everything but the method that is not equal in all studies.

    Args:
        ordered: The studies by their labels.
        baseline: Label of the one that the others are compared with.
    """
    paths = sorted({path for study in ordered.values() for path in study.settings})
    notes = [
        _unequal(ordered, "networks", lambda study: study.network),
        _unequal(ordered, "epochs per training", lambda study: str(study.epochs)),
        _unequal_versions(ordered),
        _unequal_budgets(ordered, "images per training", _images_per_training),
        _unequal_budgets(ordered, "images of the search", lambda study: study.search_images),
        *(_unequal(ordered, path, functools.partial(_setting, path)) for path in paths),
        _unequal(ordered, "devices", lambda study: " and ".join(study.devices) or "not known"),
        _unequal(ordered, "kernels", lambda study: " and ".join(study.kernels) or "not known"),
        # Of two candidates of one study, once.
        *dict.fromkeys(said for study in ordered.values() for said in study.mixtures),
        *_unfinished(ordered),
        *(
            f"{name} has a teacher that was trained before: its training and search are not in "
            "these costs."
            for name, study in ordered.items()
            if study.has_teacher
        ),
        *_unlike_seeds(ordered, baseline),
    ]
    return tuple(note for note in notes if note is not None)


def _unequal(
    studies: Mapping[str, EvaluatedStudy], what: str, value_of: Callable[[EvaluatedStudy], str]
) -> str | None:
    values = {name: value_of(study) for name, study in studies.items()}
    if len(set(values.values())) == 1:
        return None
    return f"{what[:1].upper()}{what[1:]} differ: {_grouped(values)}."


def _setting(path: str, study: EvaluatedStudy) -> str:
    return study.settings.get(path, "searched")


def _unfinished(studies: Mapping[str, EvaluatedStudy]) -> list[str]:
    """Say which trainings are in no mean: leaving them out may flatter a method."""
    notes = []
    for name, study in studies.items():
        total = len(study.seeds) + study.num_failed + study.num_left
        trainings = format_count(total, "training")
        if study.num_failed:
            notes.append(f"{name}: {study.num_failed} of {trainings} failed and is in no mean.")
        if study.num_left:
            notes.append(
                f"{name}: {study.num_left} of {trainings} is not finished; wait for all before "
                "reading a verdict."
            )
    return notes


def _unequal_versions(studies: Mapping[str, EvaluatedStudy]) -> str | None:
    """Name only the packages whose versions differ."""
    packages = sorted({name for study in studies.values() for name in study.versions})
    by_package = {
        package: {
            name: study.versions.get(package, "not known") for name, study in studies.items()
        }
        for package in packages
    }
    unequal = [
        f"{package} {_grouped(values)}"
        for package, values in by_package.items()
        if len(set(values.values())) > 1
    ]
    return f"Versions differ: {'; '.join(unequal)}." if unequal else None


def _unequal_budgets(
    studies: Mapping[str, EvaluatedStudy],
    what: str,
    value_of: Callable[[EvaluatedStudy], float | None],
) -> str | None:
    values = {name: value_of(study) for name, study in studies.items()}
    known = [value for value in values.values() if value is not None]
    complete = len(known) == len(values)
    if not known or (complete and max(known) <= (1 + BUDGET_TOLERANCE) * min(known)):
        return None
    texts = {
        name: "not known" if value is None else f"{value:,.0f}" for name, value in values.items()
    }
    verdict = "Budgets differ" if complete else "Not all budgets are known"
    return f"{verdict}, {what}: {_grouped(texts)}."


def _unlike_seeds(ordered: Mapping[str, EvaluatedStudy], baseline: str) -> list[str]:
    """Say which seeds have no partner, and which are paired by their index alone."""
    notes = []
    indices = {
        name: frozenset(seed.seed_index for seed in study.seeds) for name, study in ordered.items()
    }
    if len(set(indices.values())) > 1:
        counts = {name: format_count(len(of_study), "seed") for name, of_study in indices.items()}
        fewer = {
            name: f"{len(of_study & indices[baseline])} paired"
            for name, of_study in indices.items()
            if of_study != indices[baseline]
        }
        notes.append(
            f"Seeds differ: {_grouped(counts)}; only those that a study has in common with "
            f"{baseline} are tested ({_grouped(fewer)}), means are over all."
        )
    # Seeds of one index should be one number: it is what makes the trainings a pair.
    reference = {seed.seed_index: seed.seed for seed in ordered[baseline].seeds}
    other = [
        name
        for name, study in ordered.items()
        if any(reference.get(seed.seed_index, seed.seed) != seed.seed for seed in study.seeds)
    ]
    if other:
        notes.append(
            f"Trained from other seeds than {baseline}: {', '.join(other)}; they are paired by "
            "the order of the seeds, which makes the test valid but no sharper than an unpaired "
            "one."
        )
    return notes


def _grouped(values: Mapping[str, str]) -> str:
    """Return ``5 (a, b), 3 (c)``: every value with the names that have it."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return ", ".join(f"{value} ({', '.join(who)})" for value, who in names.items())


def _images_per_training(study: EvaluatedStudy) -> float:
    return math.fsum(seed.images for seed in study.seeds) / len(study.seeds)
