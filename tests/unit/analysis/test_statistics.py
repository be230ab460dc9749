"""Means, intervals and paired tests: equal to scipy's, and calibrated in simulations."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from skdtune.analysis.statistics import (
    PairedComparison,
    compare_all,
    compare_paired,
    holm,
    sentence,
    summarise,
)

# Accuracies on 10,000 images.
shares = st.integers(0, 10_000).map(lambda count: count / 10_000)
samples = st.lists(shares, min_size=2, max_size=12)
pairs = st.lists(st.tuples(shares, shares), min_size=2, max_size=12)
p_values = st.lists(st.none() | st.floats(0, 1), max_size=12)


def by_seed(values: list[float] | tuple[float, ...]) -> dict[int, float]:
    return dict(enumerate(values))


def compare(values: list[float], baseline: list[float]) -> PairedComparison:
    return compare_paired(by_seed(values), by_seed(baseline))


def varied(differences: list[float]) -> bool:
    return max(differences) - min(differences) > 1e-9


# Summaries


@given(samples)
def test_a_summary_is_scipys_t_interval(values: list[float]) -> None:
    assume(varied(values))
    summary = summarise(values)
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert summary.sd == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert (summary.ci_low, summary.ci_high) == pytest.approx((low, high), abs=1e-9)


def test_one_value_has_no_spread() -> None:
    summary = summarise([0.75])
    assert (summary.n, summary.mean) == (1, 0.75)
    assert (summary.sd, summary.ci_low, summary.ci_high) == (None, None, None)


@given(shares, st.integers(2, 9))
def test_equal_values_have_exactly_no_spread(value: float, n: int) -> None:
    summary = summarise([value] * n)
    assert (summary.mean, summary.sd) == (value, 0.0)
    assert summary.ci_low == summary.ci_high == value


@pytest.mark.parametrize("values", [[], [math.nan], [0.5, math.inf]])
def test_nothing_and_non_finite_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="value"):
        summarise(values)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(7).normal(0.76, 0.003, size=(2000, 5))
    covered = 0
    for draw in draws:
        summary = summarise(draw.tolist())
        assert summary.ci_low is not None
        assert summary.ci_high is not None
        covered += summary.ci_low <= 0.76 <= summary.ci_high
    assert 0.93 <= covered / len(draws) <= 0.97


# The paired test


@given(pairs)
def test_the_test_is_scipys_paired_t_test(scores: list[tuple[float, float]]) -> None:
    assume(varied([value - base for value, base in scores]))
    values, baseline = (list(side) for side in zip(*scores, strict=True))
    comparison = compare(values, baseline)
    expected = stats.ttest_rel(values, baseline)
    interval = expected.confidence_interval(0.95)
    assert comparison.n == len(scores)
    assert comparison.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert comparison.p_holm == comparison.p
    assert comparison.difference == pytest.approx(np.mean(values) - np.mean(baseline), abs=1e-12)
    assert comparison.ci_low == pytest.approx(interval.low, abs=1e-9)
    assert comparison.ci_high == pytest.approx(interval.high, abs=1e-9)
    assert comparison.effect_size == pytest.approx(
        expected.statistic / math.sqrt(len(scores)), rel=1e-6, abs=1e-12
    )


def test_hedges_correction_of_five_pairs() -> None:
    comparison = compare([0.72, 0.74, 0.71, 0.75, 0.73], [0.70, 0.71, 0.70, 0.70, 0.72])
    assert comparison.effect_size is not None
    # Exact for 4 degrees of freedom: gamma(2) / (sqrt(2) * gamma(3 / 2)).
    factor = 1 / (math.sqrt(2) * math.sqrt(math.pi) / 2)
    assert comparison.effect_size_hedges == pytest.approx(comparison.effect_size * factor)
    assert compare([0.7, 0.8], [0.6, 0.6]).effect_size_hedges is None


@given(pairs)
def test_swapping_the_two_turns_the_sign(scores: list[tuple[float, float]]) -> None:
    values, baseline = (list(side) for side in zip(*scores, strict=True))
    there, back = compare(values, baseline), compare(baseline, values)
    opposite = {
        "better": "worse",
        "worse": "better",
        "not distinguishable": "not distinguishable",
    }
    assert there.difference == -back.difference  # type: ignore[operator]
    assert (there.p, there.reason) == (back.p, back.reason)
    assert there.verdict == opposite[back.verdict]
    if there.ci_low is not None:
        assert (there.ci_low, there.ci_high) == (-back.ci_high, -back.ci_low)  # type: ignore[operator]
        assert there.effect_size == -back.effect_size  # type: ignore[operator]


@given(pairs, st.integers(-100, 100))
def test_a_shift_of_both_changes_nothing(scores: list[tuple[float, float]], shift: int) -> None:
    values, baseline = (list(side) for side in zip(*scores, strict=True))
    plain = compare(values, baseline)
    shifted = compare([value + shift for value in values], [base + shift for base in baseline])
    assert (plain.reason, plain.verdict) == (shifted.reason, shifted.verdict)
    assert plain.difference == pytest.approx(shifted.difference, abs=1e-9)
    assert plain.p == (None if shifted.p is None else pytest.approx(shifted.p, rel=1e-4, abs=1e-9))


@given(pairs)
def test_a_lower_error_is_better(scores: list[tuple[float, float]]) -> None:
    accuracies, baseline = (list(side) for side in zip(*scores, strict=True))
    by_error = compare_paired(
        by_seed([1 - value for value in accuracies]),
        by_seed([1 - base for base in baseline]),
        higher_is_better=False,
    )
    assert by_error.verdict == compare(accuracies, baseline).verdict


def test_only_common_seeds_are_paired() -> None:
    comparison = compare_paired({1: 0.70, 2: 0.80, 5: 0.9}, {0: 0.1, 1: 0.60, 2: 0.65})
    assert comparison.n == 2
    assert comparison.difference == pytest.approx(0.125)


@pytest.mark.parametrize("n", [2, 5])
def test_equal_at_every_seed(n: int) -> None:
    # 0.1 + 0.2 is not 0.3 in binary: a rounding is no difference.
    comparison = compare([0.1 + 0.2] * n, [0.3] * n)
    assert (comparison.p, comparison.p_holm, comparison.effect_size) == (1.0, 1.0, 0.0)
    assert (comparison.difference, comparison.verdict) == (0.0, "not distinguishable")
    assert comparison.reason == "both are equal at every seed"


@given(samples, st.integers(1, 100))
def test_a_constant_difference_cannot_be_tested(baseline: list[float], step: int) -> None:
    # Subtracted in binary these differ in the last digit; a t test would give p = 1e-60.
    comparison = compare([base + step / 10_000 for base in baseline], baseline)
    assert comparison.difference == pytest.approx(step / 10_000)
    assert (comparison.p, comparison.p_holm, comparison.effect_size) == (None, None, None)
    assert (comparison.ci_low, comparison.ci_high) == (None, None)
    assert comparison.verdict == "not distinguishable"
    assert comparison.reason is not None
    assert "same at every seed" in comparison.reason


@pytest.mark.parametrize(
    ("values", "baseline", "n", "difference"),
    [({0: 0.75}, {0: 0.5}, 1, 0.25), ({0: 0.75}, {1: 0.5}, 0, None), ({}, {}, 0, None)],
)
def test_one_pair_is_no_test(
    values: dict[int, float], baseline: dict[int, float], n: int, difference: float | None
) -> None:
    comparison = compare_paired(values, baseline)
    assert (comparison.n, comparison.difference) == (n, difference)
    assert (comparison.p, comparison.p_holm) == (None, None)
    assert comparison.reason == "needs at least two seeds"
    assert comparison.verdict == "not distinguishable"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_values_are_refused_on_both_sides(bad: float) -> None:
    fine = {0: 0.5, 1: 0.6}
    for values, baseline in (({0: 0.5, 1: bad}, fine), (fine, {0: 0.5, 1: bad})):
        with pytest.raises(ValueError, match="finite"):
            compare_paired(values, baseline)


# Several methods


def test_holm_as_r_does_it() -> None:
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, None, 0.01, 0.03]) == pytest.approx([0.06, None, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


@given(p_values)
def test_holm_is_its_definition(values: list[float | None]) -> None:
    tested = sorted(p for p in values if p is not None)
    count = len(tested)
    for p, adjusted in zip(values, holm(values), strict=True):
        if p is None:
            assert adjusted is None
            continue
        # The largest of all steps up to the last one that has this p.
        steps = [(count - rank) * q for rank, q in enumerate(tested) if q <= p]
        first = tested.index(p)
        upto = [step for rank, step in enumerate(steps) if rank <= first]
        assert adjusted == pytest.approx(min(1.0, max(upto)))
        assert p <= adjusted <= 1.0  # type: ignore[operator]


@given(p_values)
def test_holm_keeps_the_order(values: list[float | None]) -> None:
    both = [(p, q) for p, q in zip(values, holm(values), strict=True) if p is not None]
    adjusted = [q for _, q in sorted(both, key=lambda pair: pair[0])]
    assert adjusted == sorted(adjusted)  # type: ignore[type-var]


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1])
def test_holm_refuses_what_is_no_probability(bad: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        holm([0.5, bad])


def test_compare_all_adjusts_and_judges_by_the_adjusted_p() -> None:
    base = (0.700, 0.705, 0.695, 0.702, 0.698)
    scores = {
        "ce": by_seed(base),
        "up": by_seed([0.72, 0.726, 0.714, 0.723, 0.7185]),
        "down": by_seed([0.68, 0.684, 0.676, 0.681, 0.6795]),
        "weak": by_seed([0.701, 0.7075, 0.6955, 0.703, 0.6985]),
        "none": by_seed([0.701, 0.703, 0.696, 0.7025, 0.6975]),
        "single": {0: 0.9},
    }
    comparisons = compare_all(scores, "ce")
    assert list(comparisons) == ["up", "down", "weak", "none", "single"]
    assert [c.verdict for c in comparisons.values()] == [
        "better",
        "worse",
        "not distinguishable",
        "not distinguishable",
        "not distinguishable",
    ]
    expected = {name: stats.ttest_rel(list(scores[name].values()), base).pvalue
                for name in ("up", "down", "weak", "none")}  # fmt: skip
    assert expected["weak"] < 0.05
    assert [c.p_holm for c in comparisons.values()] == holm([c.p for c in comparisons.values()])
    assert comparisons["single"].p_holm is None
    # Untested rows do not count: the smallest p is multiplied by four.
    smallest = min(expected, key=lambda name: expected[name])
    assert comparisons[smallest].p_holm == pytest.approx(4 * expected[smallest])
    assert compare_all(scores, "ce", alpha=1e-9)["up"].verdict == "not distinguishable"
    assert compare_all(scores, "ce", higher_is_better=False)["up"].verdict == "worse"


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="'ce' is not among drg, dsr"):
        compare_all({"drg": {0: 0.5}, "dsr": {0: 0.5}}, "ce")


def test_equal_methods_are_rarely_told_apart() -> None:
    # Ten equal methods, five seeds; the share of comparisons with any verdict is at most alpha.
    draws = np.random.default_rng(11).normal(0.76, 0.003, size=(600, 10, 5))
    wrong = 0
    for draw in draws:
        scores = {str(number): by_seed(row) for number, row in enumerate(draw.tolist())}
        comparisons = compare_all(scores, "0").values()
        assert len(comparisons) == 9
        wrong += any(c.verdict != "not distinguishable" for c in comparisons)
    # Three standard errors above 5%.
    assert 0 < wrong / len(draws) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(draws))


def test_a_large_true_difference_is_found() -> None:
    draws = np.random.default_rng(13).normal(0.76, 0.003, size=(100, 2, 5))
    found = sum(
        compare((draw[1] + 0.02).tolist(), draw[0].tolist()).verdict == "better" for draw in draws
    )
    assert found >= 95


# Sentences


def comparison(**changes: object) -> PairedComparison:
    fields = {
        "n": 5,
        "difference": 0.0124,
        "ci_low": 0.0040,
        "ci_high": 0.0208,
        "p": 0.004,
        "p_holm": 0.012,
        "verdict": "better",
    } | changes
    return PairedComparison(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            "drg is better than ce by 1.24 points "
            "(95% interval 0.40 to 2.08, 5 seeds, p = 0.012 after Holm).",
        ),
        (
            {"difference": -0.0124, "ci_low": -0.0208, "ci_high": -0.0040, "verdict": "worse"},
            "drg is worse than ce by 1.24 points "
            "(95% interval 0.40 to 2.08, 5 seeds, p = 0.012 after Holm).",
        ),
        (
            {
                "difference": 0.001,
                "ci_low": -0.007,
                "ci_high": 0.009,
                "p_holm": 0.77,
                "verdict": "not distinguishable",
            },
            "drg cannot be told apart from ce: +0.10 points "
            "(95% interval -0.70 to 0.90, 5 seeds, p = 0.77 after Holm).",
        ),
        (
            {"p_holm": 0.0001},
            "drg is better than ce by 1.24 points "
            "(95% interval 0.40 to 2.08, 5 seeds, p < 0.001 after Holm).",
        ),
    ],
)
def test_a_sentence_says_what_was_found(changes: dict[str, object], expected: str) -> None:
    assert sentence("drg", "ce", comparison(**changes)) == expected


@pytest.mark.parametrize(
    ("values", "baseline", "expected"),
    [
        ([0.5], [0.45], "drg cannot be tested against ce: needs at least two seeds "
                        "(+5.00 points, 1 seed)."),
        ([], [], "drg cannot be compared with ce: they have no seed in common."),
        ([0.5, 0.6], [0.5, 0.6], "drg cannot be told apart from ce: both are equal at every seed "
                                 "(2 seeds)."),
        ([0.51, 0.61], [0.5, 0.6], "drg cannot be tested against ce: the difference is the same "
                                   "at every seed, so that its spread is unknown "
                                   "(+1.00 points, 2 seeds)."),
    ],
)  # fmt: skip
def test_a_sentence_says_why_there_is_no_test(
    values: list[float], baseline: list[float], expected: str
) -> None:
    assert sentence("drg", "ce", compare(values, baseline)) == expected


def test_other_units_are_not_made_percent() -> None:
    text = sentence("drg", "ce", comparison(), unit="nats")
    assert "by 0.0124 nats (95% interval 0.0040 to 0.0208" in text


def test_importing_it_loads_neither_numpy_nor_scipy() -> None:
    code = (
        "import sys, skdtune.analysis.statistics, skdtune.analysis.tables; "
        "print([name for name in ('numpy', 'scipy', 'torch', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
