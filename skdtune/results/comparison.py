"""Methods beside one baseline: from studies evaluated on the test images to the table of a paper.

Only what may be compared is compared: studies on other data are refused, anything else that
differs (network, epochs, images per training, seeds, what a search cost) is noted under the table.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skdtune.errors import StudyError
from skdtune.results.comparability import differences
from skdtune.results.comparison_notes import explanations, findings
from skdtune.results.statistics import (
    ALPHA,
    PairedComparison,
    Summary,
    compare_all,
    sentence,
    summarise,
)
from skdtune.results.tables import (
    MISSING,
    Column,
    Table,
    format_count,
    format_interval,
    format_mean_sd,
    format_p,
)

_METRICS = ("accuracy", "top5", "ece", "nll")


@dataclass(frozen=True, kw_only=True)
class EvaluatedSeed:
    """One training on train and validation images, and what it was worth on the test images."""

    seed_index: int
    """Which seed of the evaluation; trainings of one index are paired."""

    seed: int
    accuracy: float
    """Share of test images, 0 to 1; so is `top5`."""

    top5: float
    ece: float
    """Expected calibration error, 0 to 1."""

    nll: float
    """Mean negative log-likelihood in nats."""

    images: int
    """Images trained on, every view counted."""

    seconds: float
    """Sum of the epochs' times."""

    peak_memory_mb: float | None
    trial: int


@dataclass(frozen=True, kw_only=True)
class EvaluatedStudy:
    """One setting of a study, trained from several seeds."""

    study: str
    method: str
    candidate_trial: int
    """The trial of the search that the setting is from."""

    seeds: tuple[EvaluatedSeed, ...]
    data_fingerprint: str
    network: str
    epochs: int
    search_images: int | None
    """Images that the whole search trained on; None where it is not known."""

    search_seconds: float | None
    num_search_trials: int | None
    digest: str
    """Of the study spec."""

    versions: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)
    """What is the same in all trials of the study and no part of the method, by dotted path."""

    devices: tuple[str, ...] = ()
    """Where the trainings ran, with their precision."""

    num_failed: int = 0
    """Trainings that ended without a score, by a loss that became non-finite or otherwise."""

    num_left: int = 0
    """Trainings that are not finished yet."""

    has_teacher: bool = False
    """A network that was trained before took part; its own training is in no number here."""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One setting beside the baseline."""

    label: str
    """The study; with the number of its trial where a study gave several settings."""

    study: str
    method: str
    candidate_trial: int
    accuracy: Summary
    accuracy_vs_baseline: PairedComparison | None
    """None for the baseline itself, here and below."""

    top5: Summary
    ece: Summary
    ece_vs_baseline: PairedComparison | None
    """Lower is better."""

    nll: Summary
    nll_vs_baseline: PairedComparison | None
    """Lower is better."""

    images: float
    """Mean per training."""

    images_ratio: float | None
    """Over the baseline's; None where that is 0."""

    seconds: float
    """Mean per training."""

    seconds_ratio: float | None
    peak_memory_mb: float | None
    """Mean over the seeds; None where a training did not measure it."""

    peak_memory_ratio: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every setting beside the baseline, the baseline first."""

    baseline: str
    """Label of the baseline's row."""

    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]
    """What differs between the studies beside the method, one sentence each."""

    alpha: float
    studies: tuple[EvaluatedStudy, ...]
    """What the numbers were made of, in the order of the rows."""

    @property
    def others(self) -> tuple[ComparisonRow, ...]:
        """All rows but the baseline."""
        return self.rows[1:]


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
        _check_same_data(name, study, label, ordered[label])
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
        found = [name for name, study in by_label.items() if getattr(study, kind) == baseline]
        if len(found) == 1:
            return found[0]
        if found:
            raise StudyError(
                f"baseline {baseline!r} may be any of {', '.join(found)}; name one of these"
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


def _check_same_data(
    name: str, study: EvaluatedStudy, baseline: str, reference: EvaluatedStudy
) -> None:
    if study.data_fingerprint != reference.data_fingerprint:
        raise StudyError(
            f"{name} was evaluated on other data than {baseline} (fingerprint "
            f"{study.data_fingerprint}, not {reference.data_fingerprint}); compare studies of one "
            "data set"
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
        found = accuracy.get(name)
        rows.append(
            ComparisonRow(
                label=name,
                study=study.study,
                method=study.method,
                candidate_trial=study.candidate_trial,
                accuracy_vs_baseline=found,
                ece_vs_baseline=ece.get(name),
                nll_vs_baseline=nll.get(name),
                images=_images(study),
                images_ratio=_ratio(_images(study), _images(reference)),
                seconds=_seconds(study),
                seconds_ratio=_ratio(_seconds(study), _seconds(reference)),
                peak_memory_mb=_peak_memory(study),
                peak_memory_ratio=_ratio(_peak_memory(study), _peak_memory(reference)),
                sentence=_baseline_sentence(name, summaries["accuracy"])
                if found is None
                else sentence(name, baseline, found),
                **summaries,
            )
        )
    return tuple(rows)


def _by_seed(studies: Mapping[str, EvaluatedStudy], metric: str) -> dict[str, dict[int, float]]:
    return {
        name: {seed.seed_index: getattr(seed, metric) for seed in study.seeds}
        for name, study in studies.items()
    }


def _baseline_sentence(name: str, accuracy: Summary) -> str:
    seeds = format_count(accuracy.n, "seed")
    return f"{name} is the baseline: {format_mean_sd(accuracy)}% over {seeds}."


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
    headers = (
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
    return Table(
        title=f"Test accuracy beside {comparison.baseline}",
        columns=(
            Column(header="Method"),
            *(
                Column(header=header, align="left" if header == "Verdict" else "right")
                for header in headers
            ),
        ),
        rows=tuple(_cells(comparison, row) for row in comparison.rows),
        notes=(*findings(comparison), *explanations(comparison), *comparison.notes),
    )


def _cells(comparison: Comparison, row: ComparisonRow) -> tuple[str, ...]:
    return (
        _method_cell(comparison, row),
        format_mean_sd(row.accuracy),
        *_comparison_cells(row.accuracy_vs_baseline),
        format_mean_sd(row.top5),
        format_mean_sd(row.ece) + _mark(row.ece_vs_baseline),
        format_mean_sd(row.nll, scale=1.0, digits=3) + _mark(row.nll_vs_baseline),
        f"{row.images:,.0f}",
        f"{row.seconds:,.0f} s{_times(row.seconds_ratio)}",
        MISSING
        if row.peak_memory_mb is None
        else f"{row.peak_memory_mb:,.0f} MB{_times(row.peak_memory_ratio)}",
    )


def _method_cell(comparison: Comparison, row: ComparisonRow) -> str:
    alone = sum(other.method == row.method for other in comparison.rows) == 1
    return row.method if alone else f"{row.method} ({row.label})"


def _comparison_cells(found: PairedComparison | None) -> tuple[str, ...]:
    if found is None:
        return (MISSING, MISSING, MISSING, MISSING, "baseline")
    return (
        MISSING if found.difference is None else f"{found.difference * 100:+z.2f}",
        format_interval(found.ci_low, found.ci_high),
        format_p(found.p_holm),
        MISSING if found.effect_size is None else f"{found.effect_size:+z.2f}",
        found.verdict if found.p is not None else "not tested",
    )


def _mark(found: PairedComparison | None) -> str:
    return "*" if found is not None and found.verdict != "not distinguishable" else ""


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f" ({ratio:.2f}x)"


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return plain data for JSON: every number of the table unrounded, and every seed's."""
    return {
        "baseline": comparison.baseline,
        "alpha": comparison.alpha,
        "test": "two-sided paired t test, Holm within each metric",
        "notes": list(comparison.notes),
        "rows": [dataclasses.asdict(row) for row in comparison.rows],
        "studies": [_study_data(study) for study in comparison.studies],
    }


def _study_data(study: EvaluatedStudy) -> dict[str, Any]:
    plain = {
        each.name: getattr(study, each.name)
        for each in dataclasses.fields(study)
        if each.name not in ("seeds", "versions", "settings", "devices")
    }
    seeds = [dataclasses.asdict(seed) for seed in study.seeds]
    mappings: dict[str, Any] = {
        "versions": dict(study.versions),
        "settings": dict(study.settings),
        "devices": list(study.devices),
    }
    return plain | mappings | {"seeds": seeds}
