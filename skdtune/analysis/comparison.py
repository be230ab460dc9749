"""Methods beside one baseline: from studies evaluated on the test images to the table of a paper.

Only what may be compared is compared: studies on other data are refused, anything else that
differs (network, epochs, images per training, seeds, what a search cost) is noted under the table.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from skdtune.analysis.comparability import differences
from skdtune.analysis.comparison_notes import explanations, findings
from skdtune.analysis.evaluated import Comparison, ComparisonRow, EvaluatedStudy
from skdtune.analysis.statistics import (
    ALPHA,
    PairedComparison,
    compare_all,
    format_mean_sd,
    sentence,
    summarise,
)
from skdtune.analysis.tables import (
    MISSING,
    Column,
    Table,
    format_count,
    format_interval,
    format_p,
)
from skdtune.errors import StudyError

_METRICS = ("accuracy", "top5", "ece", "nll")
_HEADERS = (
    "Accuracy (%)",
    "Difference",
    "95% interval",
    "p (Holm)",
    "d_z",
    "Verdict",
    "Top-5 (%)",
    "ECE (%)",
    "NLL",
    "Images",
    "Time",
    "Memory",
)


def compare_studies(studies: Sequence[EvaluatedStudy], baseline: str) -> Comparison:
    """Compare evaluated studies with one of them.

    Args:
        studies: At least one; of one study there may be several settings.
        baseline: The label of a row (see `labels_of`), else a study, else a method, of which there
            must be one setting.

    Raises:
        StudyError: A study was evaluated on other data than the baseline, has no seed, one seed
            twice, or a number that is not finite; or no single setting is called `baseline`.
    """
    if not studies:
        raise StudyError("there is no evaluated study to compare")
    by_label = dict(zip(labels_of(studies), studies, strict=True))
    if len(by_label) < len(studies):
        twice = Counter(labels_of(studies)).most_common(1)[0][0]
        raise StudyError(f"{twice} is given twice; give every study once")
    label = _find_baseline(by_label, baseline)
    ordered = {label: by_label[label]} | by_label
    for name, study in ordered.items():
        _check(name, study)
        if study.data_fingerprint != ordered[label].data_fingerprint:
            raise StudyError(
                f"{name} was evaluated on other data than {label} (fingerprint "
                f"{study.data_fingerprint}, not {ordered[label].data_fingerprint}); compare "
                "studies of one data set"
            )
    return Comparison(
        baseline=label,
        rows=_rows(ordered, label),
        notes=differences(ordered, label),
        alpha=ALPHA,
        studies=tuple(ordered.values()),
    )


def labels_of(studies: Sequence[EvaluatedStudy]) -> list[str]:
    """Return what each setting is called: its study, with the trial where that is not enough."""
    count = Counter(study.study for study in studies)
    return [
        study.study if count[study.study] == 1 else f"{study.study}#{study.candidate_trial}"
        for study in studies
    ]


def _find_baseline(by_label: Mapping[str, EvaluatedStudy], baseline: str) -> str:
    if baseline in by_label:
        return baseline
    # A study with several settings, or a method.
    for kind in ("study", "method"):
        names = [name for name, study in by_label.items() if getattr(study, kind) == baseline]
        if len(names) == 1:
            return names[0]
        if names:
            raise StudyError(
                f"baseline {baseline!r} may be any of {', '.join(names)}; name one of these"
            )
    raise StudyError(
        f"baseline {baseline!r} is not among the evaluated studies: {', '.join(by_label)}"
    )


def _check(name: str, study: EvaluatedStudy) -> None:
    """Refuse what no mean can be taken of."""
    if not study.seeds:
        raise StudyError(f"{name} has no finished evaluation; evaluate it first")
    index, times = Counter(seed.seed_index for seed in study.seeds).most_common(1)[0]
    if times > 1:
        raise StudyError(f"{name} has {times} evaluations of seed index {index}; one is expected")
    for seed in study.seeds:
        for metric in (*_METRICS, "seconds"):
            value = getattr(seed, metric)
            if not math.isfinite(value):
                raise StudyError(
                    f"{name}: {metric} of trial {seed.trial} (seed index {seed.seed_index}) is "
                    f"{value}; only finite numbers can be compared"
                )


def _rows(ordered: Mapping[str, EvaluatedStudy], baseline: str) -> tuple[ComparisonRow, ...]:
    accuracy = compare_all(_by_seed(ordered, "accuracy"), baseline)
    ece = compare_all(_by_seed(ordered, "ece"), baseline, higher_is_better=False)
    nll = compare_all(_by_seed(ordered, "nll"), baseline, higher_is_better=False)
    reference = ordered[baseline]
    rows = []
    for name, study in ordered.items():
        summaries = {
            metric: summarise([getattr(seed, metric) for seed in study.seeds])
            for metric in _METRICS
        }
        paired = accuracy.get(name)
        if paired is None:
            seeds = format_count(summaries["accuracy"].n, "seed")
            mean_sd = format_mean_sd(summaries["accuracy"])
            said = f"{name} is the baseline: {mean_sd}% over {seeds}."
        else:
            said = sentence(name, baseline, paired)
        rows.append(
            ComparisonRow(
                label=name,
                study=study.study,
                method=study.method,
                candidate_trial=study.candidate_trial,
                accuracy_vs_baseline=paired,
                ece_vs_baseline=ece.get(name),
                nll_vs_baseline=nll.get(name),
                images=_images(study),
                images_ratio=_ratio(_images(study), _images(reference)),
                seconds=_seconds(study),
                seconds_ratio=_ratio(_seconds(study), _seconds(reference)),
                peak_memory_mb=_peak_memory(study),
                peak_memory_ratio=_ratio(_peak_memory(study), _peak_memory(reference)),
                sentence=said,
                **summaries,
            )
        )
    return tuple(rows)


def _by_seed(studies: Mapping[str, EvaluatedStudy], metric: str) -> dict[str, dict[int, float]]:
    return {
        name: {seed.seed_index: getattr(seed, metric) for seed in study.seeds}
        for name, study in studies.items()
    }


def _images(study: EvaluatedStudy) -> float:
    return _mean([seed.images for seed in study.seeds])


def _seconds(study: EvaluatedStudy) -> float:
    return _mean([seed.seconds for seed in study.seeds])


def _peak_memory(study: EvaluatedStudy) -> float | None:
    measured = [seed.peak_memory_mb for seed in study.seeds if seed.peak_memory_mb is not None]
    return _mean(measured) if len(measured) == len(study.seeds) else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference


def comparison_table(comparison: Comparison) -> Table:
    """Return the table as papers print it, with what a reader must know below it."""
    methods = Counter(row.method for row in comparison.rows)
    rows = []
    for row in comparison.rows:
        paired = row.accuracy_vs_baseline
        versus = (MISSING, MISSING, MISSING, MISSING, "baseline")
        if paired is not None:
            versus = (
                MISSING if paired.difference is None else f"{paired.difference * 100:+z.2f}",
                format_interval(paired.ci_low, paired.ci_high),
                format_p(paired.p_holm),
                MISSING if paired.effect_size is None else f"{paired.effect_size:+z.2f}",
                paired.verdict if paired.p is not None else "not tested",
            )
        memory = MISSING
        if row.peak_memory_mb is not None:
            memory = f"{row.peak_memory_mb:,.0f} MB{_times(row.peak_memory_ratio)}"
        cells = (
            row.method if methods[row.method] == 1 else f"{row.method} ({row.label})",
            format_mean_sd(row.accuracy),
            *versus,
            format_mean_sd(row.top5),
            format_mean_sd(row.ece) + _mark(row.ece_vs_baseline),
            format_mean_sd(row.nll, scale=1.0, digits=3) + _mark(row.nll_vs_baseline),
            f"{row.images:,.0f}",
            f"{row.seconds:,.0f} s{_times(row.seconds_ratio)}",
            memory,
        )
        rows.append(cells)
    return Table(
        title=f"Test accuracy beside {comparison.baseline}",
        columns=(
            Column(header="Method"),
            *(
                Column(header=header, align="left" if header == "Verdict" else "right")
                for header in _HEADERS
            ),
        ),
        rows=tuple(rows),
        notes=(*findings(comparison), *explanations(comparison), *comparison.notes),
    )


def _mark(paired: PairedComparison | None) -> str:
    return "*" if paired is not None and paired.verdict != "not distinguishable" else ""


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f" ({ratio:.2f}x)"


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return plain data for JSON: every number of the table unrounded, and every seed's."""
    studies = []
    for study in comparison.studies:
        plain = {each.name: getattr(study, each.name) for each in dataclasses.fields(study)}
        # These go last, as plain lists and mappings.
        for name in ("seeds", "versions", "settings", "devices"):
            del plain[name]
        plain |= {"versions": dict(study.versions), "settings": dict(study.settings)}
        plain |= {"devices": list(study.devices)}
        plain |= {"seeds": [dataclasses.asdict(seed) for seed in study.seeds]}
        studies.append(plain)
    return {
        "baseline": comparison.baseline,
        "alpha": comparison.alpha,
        "test": "two-sided paired t test, Holm within each metric",
        "notes": list(comparison.notes),
        "rows": [dataclasses.asdict(row) for row in comparison.rows],
        "studies": studies,
    }
