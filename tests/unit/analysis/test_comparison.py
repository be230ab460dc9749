"""Evaluated studies beside a baseline: what is refused, what is noted, and what the table says."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import pytest
from scipy import stats

from skdtune.analysis.comparison import (
    compare_studies,
    comparison_data,
    comparison_table,
    labels_of,
)
from skdtune.analysis.evaluated import Comparison, ComparisonRow, EvaluatedSeed, EvaluatedStudy
from skdtune.analysis.statistics import holm
from skdtune.analysis.tables import to_csv, to_latex, to_markdown
from skdtune.errors import InputError, StudyError

BASE = (0.700, 0.705, 0.695, 0.702, 0.698)
BETTER = (0.720, 0.726, 0.714, 0.723, 0.7185)
WORSE = (0.680, 0.684, 0.676, 0.681, 0.6795)
SAME = (0.701, 0.703, 0.696, 0.7025, 0.6975)


def evaluated(
    name: str,
    accuracies: Sequence[float],
    *,
    first_seed: int = 100,
    seed_changes: dict[str, Any] | None = None,
    **changes: Any,
) -> EvaluatedStudy:
    """A study of which every number follows from its accuracies."""
    seeds = tuple(
        EvaluatedSeed(
            seed_index=index,
            seed=first_seed + index,
            accuracy=accuracy,
            top5=accuracy + 0.2,
            ece=0.1 - accuracy / 10,
            nll=2.0 - accuracy,
            images=1000,
            seconds=10.0,
            peak_memory_mb=200.0,
            trial=index,
        )
        for index, accuracy in enumerate(accuracies)
    )
    study = EvaluatedStudy(
        study=f"cifar-{name}",
        method=name,
        candidate_trial=3,
        seeds=tuple(dataclasses.replace(seed, **(seed_changes or {})) for seed in seeds),
        data_fingerprint="abc",
        network="resnet18",
        epochs=200,
        search_images=50_000,
        search_seconds=60.0,
        num_search_trials=8,
        digest="0123",
        versions=MappingProxyType({"torch": "2.14", "skdtune": "0.3"}),
    )
    return dataclasses.replace(study, **changes)


def four() -> list[EvaluatedStudy]:
    return [
        evaluated("drg", BETTER),
        evaluated("ce", BASE),
        evaluated("dsr", WORSE),
        evaluated("ls", SAME),
    ]


def row_of(comparison: Comparison, method: str) -> ComparisonRow:
    return next(row for row in comparison.rows if row.method == method)


def table_rows(comparison: Comparison) -> dict[str, dict[str, str]]:
    table = comparison_table(comparison)
    headers = [column.header for column in table.columns]
    return {row[0]: dict(zip(headers, row, strict=True)) for row in table.rows}


# Rows


def test_the_baseline_comes_first_and_is_compared_with_nothing() -> None:
    comparison = compare_studies(four(), "cifar-ce")
    assert [row.method for row in comparison.rows] == ["ce", "drg", "dsr", "ls"]
    assert [study.method for study in comparison.studies] == ["ce", "drg", "dsr", "ls"]
    baseline = comparison.rows[0]
    assert baseline.accuracy_vs_baseline is None
    assert baseline.ece_vs_baseline is None
    assert baseline.nll_vs_baseline is None
    assert baseline.sentence == "cifar-ce is the baseline: 70.00 ± 0.38% over 5 seeds."
    assert comparison.notes == ()


def test_every_metric_is_tested_with_its_own_holm() -> None:
    comparison = compare_studies(four(), "ce")
    methods = ("drg", "dsr", "ls")
    for field, metric in (
        ("accuracy_vs_baseline", "accuracy"),
        ("ece_vs_baseline", "ece"),
        ("nll_vs_baseline", "nll"),
    ):
        studies = {study.method: study for study in comparison.studies}
        numbers = {
            name: [getattr(seed, metric) for seed in study.seeds]
            for name, study in studies.items()
        }
        raw = [float(stats.ttest_rel(numbers[name], numbers["ce"]).pvalue) for name in methods]
        found = [getattr(row_of(comparison, name), field) for name in methods]
        assert [one.p for one in found] == pytest.approx(raw, rel=1e-6)
        assert [one.p_holm for one in found] == pytest.approx(holm(raw), rel=1e-6)
        # Here calibration and likelihood follow accuracy: lower is better.
        assert [one.verdict for one in found] == ["better", "worse", "not distinguishable"]


def test_sentences_name_the_studies() -> None:
    comparison = compare_studies(four(), "cifar-ce")
    sentences = {row.method: row.sentence for row in comparison.rows}
    assert sentences["drg"].startswith("cifar-drg is better than cifar-ce by 2.03 points (95%")
    assert sentences["dsr"].startswith("cifar-dsr is worse than cifar-ce by 1.99 points (95%")
    assert sentences["ls"].startswith("cifar-ls cannot be told apart from cifar-ce: ")


def test_costs_are_multiples_of_the_baseline() -> None:
    dear = evaluated(
        "drg", BETTER, seed_changes={"images": 2000, "seconds": 25.0, "peak_memory_mb": 300.0}
    )
    row = row_of(compare_studies([evaluated("ce", BASE), dear], "ce"), "drg")
    assert (row.images, row.images_ratio) == (2000, 2.0)
    assert (row.seconds, row.seconds_ratio) == (25.0, 2.5)
    assert (row.peak_memory_mb, row.peak_memory_ratio) == (300.0, 1.5)


def test_what_was_not_measured_has_no_ratio() -> None:
    unmeasured = {"images": 0, "seconds": 0.0, "peak_memory_mb": None}
    baseline = evaluated("ce", BASE, seed_changes=unmeasured)
    comparison = compare_studies([baseline, evaluated("drg", BETTER)], "ce")
    row = row_of(comparison, "drg")
    assert (row.images_ratio, row.seconds_ratio, row.peak_memory_ratio) == (None, None, None)
    cells = table_rows(comparison)["drg"]
    assert (cells["Images"], cells["Time"], cells["Memory"]) == ("1,000", "10 s", "200 MB")
    assert table_rows(comparison)["ce"]["Memory"] == "-"


# Which one is the baseline


@pytest.mark.parametrize("baseline", ["cifar-ce", "ce"])
def test_the_baseline_is_a_study_or_a_method(baseline: str) -> None:
    assert compare_studies(four(), baseline).baseline == "cifar-ce"


def test_several_settings_of_a_study_are_told_apart() -> None:
    published = evaluated("ce", BASE, candidate_trial=0)
    searched = evaluated("ce", BETTER, candidate_trial=7)
    studies = [published, searched, evaluated("drg", SAME)]
    assert labels_of(studies) == ["cifar-ce#0", "cifar-ce#7", "cifar-drg"]
    comparison = compare_studies(studies, "cifar-ce#0")
    assert [row.label for row in comparison.rows] == ["cifar-ce#0", "cifar-ce#7", "cifar-drg"]
    assert list(table_rows(comparison)) == ["ce (cifar-ce#0)", "ce (cifar-ce#7)", "drg"]
    with pytest.raises(StudyError, match="may be any of cifar-ce#0, cifar-ce#7"):
        compare_studies(studies, "cifar-ce")


def refusal(studies: Sequence[EvaluatedStudy], baseline: str = "ce") -> str:
    with pytest.raises(InputError) as caught:
        compare_studies(studies, baseline)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_cannot_be_compared_is_refused_in_one_line() -> None:
    ce = evaluated("ce", BASE)
    assert "no evaluated study" in refusal([])
    assert "'bake' is not among the evaluated studies: cifar-ce" in refusal([ce], "bake")
    other = evaluated("drg", BASE, data_fingerprint="xyz")
    assert "cifar-drg was evaluated on other data than cifar-ce" in refusal([other, ce])
    assert "cifar-drg has no finished evaluation" in refusal([ce, evaluated("drg", ())])
    twice = evaluated("drg", BASE[:2], seed_changes={"seed_index": 1})
    assert "2 evaluations of seed index 1" in refusal([ce, twice])
    assert "cifar-ce#3 is given twice" in refusal([ce, ce])


@pytest.mark.parametrize("metric", ["accuracy", "top5", "ece", "nll", "seconds"])
def test_a_number_that_is_not_finite_is_refused_by_its_name(metric: str) -> None:
    bad = evaluated("drg", BASE, seed_changes={metric: math.nan})
    message = refusal([evaluated("ce", BASE), bad])
    assert f"cifar-drg: {metric} of trial 0 (seed index 0) is nan" in message


# What is noted


def notes(**changes: Any) -> tuple[str, ...]:
    return compare_studies(
        [evaluated("ce", BASE), evaluated("drg", BETTER, **changes)], "ce"
    ).notes


def test_differences_beside_the_method_are_noted() -> None:
    assert notes() == ()
    assert notes(network="resnet50") == (
        "Networks differ: resnet18 (cifar-ce), resnet50 (cifar-drg).",
    )
    assert notes(epochs=100) == ("Epochs per training differ: 200 (cifar-ce), 100 (cifar-drg).",)
    assert notes(versions={"torch": "2.6", "skdtune": "0.3", "numpy": "2"}) == (
        "Versions differ: numpy not known (cifar-ce), 2 (cifar-drg); "
        "torch 2.14 (cifar-ce), 2.6 (cifar-drg).",
    )
    assert notes(search_images=100_000) == (
        "Budgets differ, images of the search: 50,000 (cifar-ce), 100,000 (cifar-drg).",
    )
    assert notes(search_images=None) == (
        "Not all budgets are known, images of the search: "
        "50,000 (cifar-ce), not known (cifar-drg).",
    )
    assert notes(computed_by=("native", "torch")) == (
        "Kernels differ: not known (cifar-ce), native and torch (cifar-drg).",
    )
    assert notes(mixed=("The trials of drg are not alike.",)) == (
        "The trials of drg are not alike.",
    )


@pytest.mark.parametrize(
    ("images", "noted"), [(1050, False), (1051, True), (953, False), (952, True), (0, True)]
)
def test_budgets_may_differ_by_five_percent(images: int, noted: bool) -> None:
    found = notes(seed_changes={"images": images})
    assert any("Budgets differ, images per training" in note for note in found) == noted
    assert len(found) == noted


def test_unequal_seeds_are_noted_and_only_common_ones_tested() -> None:
    comparison = compare_studies(
        [evaluated("ce", BASE), evaluated("drg", BETTER[:3]), evaluated("ls", SAME)], "ce"
    )
    found = row_of(comparison, "drg").accuracy_vs_baseline
    assert found is not None
    assert found.n == 3
    assert found.p == pytest.approx(stats.ttest_rel(BETTER[:3], BASE[:3]).pvalue, rel=1e-6)
    assert comparison.notes == (
        "Seeds differ: 5 seeds (cifar-ce, cifar-ls), 3 seeds (cifar-drg); only those that a "
        "study has in common with cifar-ce are tested (3 paired (cifar-drg)), means are over all.",
    )
    explained = comparison_table(comparison).notes
    assert any("over 3 to 5 seeds per method" in note for note in explained)


def test_other_seeds_under_the_same_index_are_noted() -> None:
    (note,) = notes(seed_changes={"seed": 5})
    assert note.startswith("Trained from other seeds than cifar-ce: cifar-drg; ")


# The table


def test_the_table_as_papers_print_it() -> None:
    rows = table_rows(compare_studies(four(), "ce"))
    assert rows["ce"] == {
        "Method": "ce",
        "Accuracy (%)": "70.00 ± 0.38",
        "Difference": "-",
        "95% interval": "-",
        "p (Holm)": "-",
        "d_z": "-",
        "Verdict": "baseline",
        "Top-5 (%)": "90.00 ± 0.38",
        "ECE (%)": "3.00 ± 0.04",
        "NLL": "1.300 ± 0.004",
        "Images": "1,000",
        "Time": "10 s (1.00x)",
        "Memory": "200 MB (1.00x)",
    }
    assert rows["drg"]["Difference"] == "+2.03"
    assert rows["drg"]["p (Holm)"] == "<0.001"
    assert [rows[name]["Verdict"] for name in ("drg", "dsr", "ls")] == [
        "better",
        "worse",
        "not distinguishable",
    ]
    # A star where calibration or likelihood differ, and only there.
    assert [rows[name]["ECE (%)"].endswith("*") for name in ("drg", "dsr", "ls")] == [True] * 2 + [
        False
    ]
    assert rows["drg"]["NLL"].endswith("*")


def test_the_notes_say_what_was_found_and_how() -> None:
    said = comparison_table(compare_studies(four(), "ce")).notes
    assert said[:4] == (
        "Better than cifar-ce at the 5% level: cifar-drg.",
        "Worse than cifar-ce at the 5% level: cifar-dsr.",
        "Not distinguishable from cifar-ce: cifar-ls.",
        "Not distinguishable is not equal: the interval says what differences remain possible.",
    )
    text = " ".join(said)
    assert "Baseline: cifar-ce. Mean ± standard deviation over 5 seeds per method" in text
    assert "two-sided paired t test over common seeds, adjusted by Holm for 3 tests" in text
    assert "Differences between two methods that are not the baseline are untested." in text


def test_a_null_is_said_plainly() -> None:
    table = comparison_table(compare_studies([evaluated("ce", BASE), evaluated("ls", SAME)], "ce"))
    assert table.notes[0] == "No method can be told apart from cifar-ce at the 5% level."
    assert not any(note.startswith(("Better", "Worse")) for note in table.notes)


def test_a_test_that_is_missing_is_said_with_its_reason() -> None:
    comparison = compare_studies([evaluated("ce", BASE[:1]), evaluated("drg", BETTER[:1])], "ce")
    table = comparison_table(comparison)
    assert table.notes[:2] == (
        "No test was possible: whether a method differs from the baseline is open.",
        "cifar-drg: needs at least two seeds.",
    )
    cells = table_rows(comparison)["drg"]
    assert (cells["Accuracy (%)"], cells["Difference"]) == ("72.00", "+2.00")
    assert (cells["p (Holm)"], cells["Verdict"]) == ("-", "not tested")


def test_ties_are_said() -> None:
    comparison = compare_studies([evaluated("ce", BASE), evaluated("drg", BASE)], "ce")
    said = comparison_table(comparison).notes
    assert "cifar-drg: both are equal at every seed." in said
    assert "Tie for the highest mean accuracy, 70.00%: cifar-ce, cifar-drg." in said
    untied = comparison_table(compare_studies(four(), "ce")).notes
    assert not any(note.startswith("Tie") for note in untied)


def test_a_baseline_alone_is_a_table_too() -> None:
    table = comparison_table(compare_studies([evaluated("ce", BASE)], "ce"))
    assert len(table.rows) == 1
    assert table.notes[0] == "There is nothing to compare the baseline with."


def test_every_form_of_the_table_can_be_written() -> None:
    table = comparison_table(compare_studies(four(), "ce"))
    assert to_markdown(table).count("\n| ") == 6
    assert r"70.00 $\pm$ 0.38" in to_latex(table)
    assert r"d\_z" in to_latex(table)
    assert len(to_csv(table).splitlines()) == 5


# Data


def test_the_data_are_plain_json_with_every_seed() -> None:
    comparison = compare_studies(four(), "ce")
    data = comparison_data(comparison)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert [row["label"] for row in data["rows"]] == [row.label for row in comparison.rows]
    assert data["rows"][0]["accuracy_vs_baseline"] is None
    assert data["rows"][1]["accuracy_vs_baseline"]["verdict"] == "better"
    assert data["studies"][1]["versions"] == {"torch": "2.14", "skdtune": "0.3"}
    # What is in the data is enough to make the comparison again.
    studies = [
        EvaluatedStudy(
            **{
                **study,
                "seeds": tuple(EvaluatedSeed(**seed) for seed in study["seeds"]),
            }
        )
        for study in data["studies"]
    ]
    assert comparison_data(compare_studies(studies, data["baseline"])) == data
