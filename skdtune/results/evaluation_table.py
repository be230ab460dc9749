"""The result of final evaluations as a table of texts and as plain data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from skdtune.results.comparison import EvaluatedStudy
from skdtune.results.evaluation_results import EvaluationResults, MissingSeed
from skdtune.results.statistics import Summary, summarise
from skdtune.results.tables import (
    MISSING,
    Column,
    Table,
    format_duration,
    format_interval,
    format_mean_sd,
)

_METRICS = ("accuracy", "top5", "ece", "nll")
_HEADERS = (
    "Accuracy (%)",
    "95% interval",
    "Seeds",
    "Top-5 (%)",
    "ECE (%)",
    "NLL",
    "Images",
    "Device time",
)


def evaluation_table(found: Sequence[EvaluationResults]) -> Table:
    """Return one row for each candidate, and below what is needed to judge and repeat them.

    Args:
        found: At least one evaluation.
    """
    return Table(
        title="Test accuracy",
        columns=(
            Column(header="Study"),
            Column(header="Trial", align="right"),
            Column(header="Method"),
            *(Column(header=header, align="right") for header in _HEADERS),
        ),
        rows=tuple(_cells(study) for results in found for study in results.candidates),
        notes=tuple([*_EXPLANATIONS, *(note for one in found for note in _notes(one))]),
    )


_EXPLANATIONS = (
    "Each training learned from training and validation images together, and was scored once on "
    "the test images, after its last epoch.",
    "Mean ± standard deviation of the sample over the seeds; 95% t interval of the mean. Images "
    "(every view counted) and device time are those of all trainings of a row together.",
)


def _cells(study: EvaluatedStudy) -> tuple[str, ...]:
    summaries = _summaries(study)
    accuracy = summaries["accuracy"]
    return (
        study.study,
        str(study.candidate_trial),
        study.method,
        _mean_sd(accuracy),
        format_interval(accuracy.ci_low, accuracy.ci_high) if accuracy else MISSING,
        str(len(study.seeds)),
        _mean_sd(summaries["top5"]),
        _mean_sd(summaries["ece"]),
        _mean_sd(summaries["nll"], scale=1.0, digits=3),
        f"{sum(seed.images for seed in study.seeds):,}",
        format_duration(sum(seed.seconds for seed in study.seeds)),
    )


def _summaries(study: EvaluatedStudy) -> dict[str, Summary | None]:
    return {
        metric: _summary([getattr(seed, metric) for seed in study.seeds]) for metric in _METRICS
    }


def _summary(values: Sequence[float]) -> Summary | None:
    # The likelihood of a network that overflowed is no number.
    return summarise(values) if values and all(map(math.isfinite, values)) else None


def _mean_sd(summary: Summary | None, scale: float = 100.0, digits: int = 2) -> str:
    return MISSING if summary is None else format_mean_sd(summary, scale, digits)


def _notes(found: EvaluationResults) -> list[str]:
    prints = sorted({s.data_fingerprint for s in found.candidates if s.seeds})
    seeds = ", ".join(str(seed) for _, seed in sorted(found.seeds.items()))
    versions = {
        f"{name} {version}"
        for study in found.candidates
        for name, version in study.versions.items()
    }
    facts = {
        "seeds": seeds,
        "spec": found.spec.digest,
        "data": ", ".join(prints),
        "network": found.spec.model.name,
        "device": ", ".join(found.devices),
        "versions": ", ".join(sorted(versions)),
    }
    told = "; ".join(f"{name} {value}" for name, value in facts.items() if value)
    notes = [f"{found.name}: {told}."]
    if len(prints) > 1 or any("+" in one for one in prints):
        notes.append(f"{found.name}: the data changed between its trainings.")
    if len(found.candidates) > 1:
        notes.append(
            f"{found.name}: the order is that of the search; who picks a candidate by its test "
            "accuracy has chosen on the test images."
        )
    notes += [_failure(found.name, seed) for seed in found.failed]
    left = len(found.missing) - len(found.failed)
    if left:
        notes.append(f"{found.name}: {left} trainings are left: skdtune launch {found.name}.")
    return notes


def _failure(name: str, seed: MissingSeed) -> str:
    reason = f": {seed.reason.rstrip('.')}" if seed.reason else ""
    return (
        f"{name}: seed {seed.seed_index} of trial {seed.candidate_trial} FAILED and is in no "
        f"mean{reason}; skdtune explain {name} {seed.trial}."
    )


def evaluation_data(found: EvaluationResults) -> dict[str, Any]:
    """Return plain data for JSON: every number of the table unrounded, and every seed's."""
    return {
        "study": found.evaluation.source,
        "evaluation": found.name,
        "spec_hash": found.spec.digest,
        "source_spec_hash": found.evaluation.digest,
        "finished": found.finished,
        "devices": list(found.devices),
        "seeds": {str(index): seed for index, seed in sorted(found.seeds.items())},
        "candidates": [_candidate_data(study) for study in found.candidates],
        "missing": [dataclasses.asdict(seed) for seed in found.missing],
    }


def _candidate_data(study: EvaluatedStudy) -> dict[str, Any]:
    summaries = {
        metric: summary and dataclasses.asdict(summary)
        for metric, summary in _summaries(study).items()
    }
    plain = {
        field.name: getattr(study, field.name)
        for field in dataclasses.fields(study)
        if field.name not in ("seeds", "versions")
    }
    return {
        **plain,
        **summaries,
        "images": sum(seed.images for seed in study.seeds),
        "seconds": sum(seed.seconds for seed in study.seeds),
        "versions": dict(study.versions),
        "seeds": [dataclasses.asdict(seed) for seed in study.seeds],
    }
