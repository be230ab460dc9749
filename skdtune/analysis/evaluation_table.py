"""The result of final evaluations as a table of texts and as plain data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from skdtune.analysis.evaluated import EvaluatedStudy
from skdtune.analysis.evaluation_results import EvaluationResults
from skdtune.analysis.statistics import Summary, format_mean_sd, summarise
from skdtune.analysis.tables import (
    MISSING,
    Column,
    Table,
    format_duration,
    format_interval,
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
_EXPLANATIONS = (
    "Each training learned from training and validation images together, and was scored once on "
    "the test images, after its last epoch.",
    "Mean ± standard deviation of the sample over the seeds; 95% t interval of the mean. Images "
    "(every view counted) and device time are those of all trainings of a row together.",
)


def evaluation_table(evaluations: Sequence[EvaluationResults]) -> Table:
    """Return one row for each candidate, and below what is needed to judge and repeat them.

    Args:
        evaluations: At least one evaluation.
    """
    rows = []
    for study in (study for results in evaluations for study in results.candidates):
        summaries = _summaries(study)
        accuracy = summaries["accuracy"]
        cells = (
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
        rows.append(cells)
    return Table(
        title="Test accuracy",
        columns=(
            Column(header="Study"),
            Column(header="Trial", align="right"),
            Column(header="Method"),
            *(Column(header=header, align="right") for header in _HEADERS),
        ),
        rows=tuple(rows),
        notes=(*_EXPLANATIONS, *(note for results in evaluations for note in _notes(results))),
    )


def _summaries(study: EvaluatedStudy) -> dict[str, Summary | None]:
    summaries: dict[str, Summary | None] = {}
    for metric in _METRICS:
        values = [getattr(seed, metric) for seed in study.seeds]
        # The likelihood of a network that overflowed is no number.
        is_known = bool(values) and all(map(math.isfinite, values))
        summaries[metric] = summarise(values) if is_known else None
    return summaries


def _mean_sd(summary: Summary | None, scale: float = 100.0, digits: int = 2) -> str:
    return MISSING if summary is None else format_mean_sd(summary, scale, digits)


def _notes(results: EvaluationResults) -> list[str]:
    prints = sorted({s.data_fingerprint for s in results.candidates if s.seeds})
    seeds = ", ".join(str(seed) for _, seed in sorted(results.seeds.items()))
    versions = {
        f"{name} {version}"
        for study in results.candidates
        for name, version in study.versions.items()
    }
    facts = {
        "seeds": seeds,
        "spec": results.digest,
        "data": ", ".join(prints),
        "network": results.spec.model.name,
        "device": ", ".join(results.devices),
        "versions": ", ".join(sorted(versions)),
    }
    listed = "; ".join(f"{name} {value}" for name, value in facts.items() if value)
    notes = [f"{results.name}: {listed}."]
    notes += results.mixtures
    if len(results.candidates) > 1:
        notes.append(
            f"{results.name}: the order is that of the search; who picks a candidate by its test "
            "accuracy has chosen on the test images."
        )
    for seed in results.failed:
        reason = f": {seed.reason.rstrip('.')}" if seed.reason else ""
        notes.append(
            f"{results.name}: seed {seed.seed_index} of trial {seed.candidate_trial} FAILED and "
            f"is in no mean{reason}; skdtune explain {results.name} {seed.trial}."
        )
    left = len(results.missing) - len(results.failed)
    if left:
        notes.append(f"{results.name}: {left} trainings are left: skdtune launch {results.name}.")
    return notes


def evaluation_data(results: EvaluationResults) -> dict[str, Any]:
    """Return plain data for JSON: every number of the table unrounded, and every seed's."""
    candidates = []
    for study in results.candidates:
        plain = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
        # These go last, as plain lists and mappings.
        for name in ("seeds", "versions"):
            del plain[name]
        for metric, summary in _summaries(study).items():
            plain[metric] = summary and dataclasses.asdict(summary)
        plain |= {
            "images": sum(seed.images for seed in study.seeds),
            "seconds": sum(seed.seconds for seed in study.seeds),
            "versions": dict(study.versions),
            "seeds": [dataclasses.asdict(seed) for seed in study.seeds],
        }
        candidates.append(plain)
    mixed = {"mixtures": list(results.mixtures)} if results.mixtures else {}
    return mixed | {
        "study": results.evaluation.source,
        "evaluation": results.name,
        "spec_hash": results.digest,
        "source_spec_hash": results.evaluation.digest,
        "finished": results.finished,
        "devices": list(results.devices),
        "seeds": {str(index): seed for index, seed in sorted(results.seeds.items())},
        "candidates": candidates,
        "missing": [dataclasses.asdict(seed) for seed in results.missing],
    }
