"""Numbers and verdicts of a report in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from skdtune.analysis.study_record import StudyRecord
from skdtune.analysis.verdict import PUBLISHED, compared, optimism
from skdtune.analysis.without_result import describe_no_result, is_without_result
from skdtune.describe.value_format import format_accuracy
from skdtune.queue import trial_attributes as attributes

MISSING = "–"  # noqa: RUF001 - a dash, as tables have it


#: How the report calls the attributes that say where and with what a trial ran.
FACT_NAMES = {
    attributes.DATA_FINGERPRINT: "data fingerprint",
    attributes.SOURCE: "data source",
    attributes.NUM_VAL_IMAGES: "validation images",
    attributes.NUM_TEST_IMAGES: "test images",
    attributes.SPEC_HASH: "spec",
}


def share(value: float | None, error: float | None = None) -> str:
    """Write an accuracy in per cent, with its standard error where there is one."""
    return MISSING if value is None else format_accuracy(value, error)


def setting(value: object) -> str:
    """Write the value of a parameter."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def quantity(number: float) -> str:
    """Write a number, a large one in three digits: 950, 12,300, 4.56 million."""
    for size, unit in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {unit}" if number < 1e12 else f"{number:.3g}"
    return f"{number:,.0f}"


def total(values: Sequence[float | None]) -> float | None:
    """Add up what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def candidates(study: StudyRecord) -> list[tuple[int, list[float]]]:
    """List the candidates of a final evaluation, by their number in the study that was searched.

    Each comes with the results of its seeds, those that there are.
    """
    kind = study.spec.kind
    seeds: dict[int, list[float]] = {candidate.trial: [] for candidate in kind.candidates}
    for trial in study.trials:
        candidate = kind.candidate_of(trial.number)
        if candidate is not None and trial.state == "complete" and trial.value is not None:
            seeds[candidate.trial].append(trial.value)
    return list(seeds.items())


def mean_and_sd(values: Sequence[float]) -> str:
    """Write a mean with the standard deviation over seeds, in per cent."""
    if not values:
        return MISSING
    sd = statistics.stdev(values) if len(values) > 1 else None
    return format_accuracy(statistics.fmean(values), sd)


def verdict(study: StudyRecord) -> str:
    """Say what the best validation accuracy of a search is worth, picked as the best of many."""
    best, published = study.best, study.published
    if is_without_result(study):
        sentence = describe_no_result(study)
        return f"{sentence[:1].upper()}{sentence[1:]}."
    if best is None:
        ended = study.counts["pruned"] + study.counts["failed"]
        return f"No trial is complete yet{f', {ended} ended before' if ended else ''}."
    complete = study.counts["complete"]
    if complete == 1:
        return "One trial is complete: there is nothing to compare it with."
    sentences = []
    if best.number == 0:
        sentences.append("No trial beats the published setting.")
    elif published is not None:
        values = (best.value or 0.0, published.value or 0.0)
        sentences.append(compared(*values, PUBLISHED, study.num_images))
    sentences.append(optimism(complete, str(study.num_images or "")))
    return " ".join(sentences)
