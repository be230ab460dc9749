"""What a few seeds say: mean with its interval, and paired tests against a baseline.

Two methods are trained from the same seeds, so the difference is looked at seed by seed. The test
is the two-sided paired t test, its p values are adjusted by Holm's step-down method (S. Holm, *A
simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 6, 1979)
over all methods that are held against one baseline. Where no test is possible there is no p value
but a reason; nothing is called better or worse without a test.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from skdtune.analysis.tables import format_count, format_interval, format_p

Verdict = Literal["better", "worse", "not distinguishable"]

CONFIDENCE = 0.95
"""Of every interval here."""

ALPHA = 0.05
"""Rate of false verdicts that is accepted over all methods of one comparison."""

_ROUNDING = 1e-12
"""Relative; a difference of two measured shares that is smaller came from rounding."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Values of one method over its seeds."""

    n: int
    mean: float
    sd: float | None
    """Standard deviation of the sample (divided by n - 1); None for one value."""

    ci_low: float | None
    """Lower end of the 95% t interval of the mean; None for one value."""

    ci_high: float | None
    """Upper end; both are the mean where all values are equal."""


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """One method against the baseline, over the seeds that both have."""

    n: int
    """Pairs."""

    difference: float | None
    """Mean of method minus baseline; None without a pair."""

    ci_low: float | None = None
    """Lower end of the 95% t interval of the mean difference, not adjusted for several methods;
    None where there is no spread to estimate it from."""

    ci_high: float | None = None
    """Upper end."""

    p: float | None
    """Two-sided paired t test; None where it is not possible, see `reason`."""

    p_holm: float | None
    """Adjusted over all methods compared; equal to `p` for one."""

    effect_size: float | None = None
    """Cohen's d_z: mean over standard deviation of the differences; None without spread."""

    effect_size_hedges: float | None = None
    """d_z without its bias in small samples; None for less than three pairs."""

    verdict: Verdict
    """From `p_holm` and the sign; a missing test is "not distinguishable"."""

    reason: str | None = None
    """What is to be known about a test that is missing or says nothing; None as a rule."""


def summarise(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation and 95% t interval of the mean.

    Raises:
        ValueError: There is no value, or one that is not finite.
    """
    if not values:
        raise ValueError("no values to summarise")
    _check_finite(values)
    mean, sd = _mean_and_sd(values)
    if sd is None:
        return Summary(n=1, mean=mean, sd=None, ci_low=None, ci_high=None)
    half_width = _t_quantile(len(values) - 1) * sd / math.sqrt(len(values))
    return Summary(
        n=len(values), mean=mean, sd=sd, ci_low=mean - half_width, ci_high=mean + half_width
    )


def compare_paired(
    values: Mapping[int, float],
    baseline: Mapping[int, float],
    *,
    alpha: float = ALPHA,
    higher_is_better: bool = True,
) -> PairedComparison:
    """Compare one method with the baseline by the paired t test.

    Args:
        values: The method's values by the index of their seed.
        baseline: The baseline's; only indices that both have are used.
        alpha: A smaller p makes a verdict.
        higher_is_better: Which sign is "better"; False for errors and losses.

    Raises:
        ValueError: A value is not finite.
    """
    _check_finite(values.values())
    _check_finite(baseline.values())
    common = sorted(values.keys() & baseline.keys())
    differences = [values[key] - baseline[key] for key in common]
    # Decimal shares are not exact in binary: equal differences come out unequal by some 1e-17,
    # and a t test would find that overwhelming.
    rounding = _ROUNDING * max(
        (abs(side[key]) for key in common for side in (values, baseline)), default=0.0
    )
    untested = _without_test(differences, rounding)
    if untested is not None:
        return untested
    from scipy.special import stdtr  # type: ignore[import-untyped]

    # The differences have a spread, so that they can be tested.
    n = len(differences)
    mean, sd = _mean_and_sd(differences)
    assert sd is not None
    standard_error = sd / math.sqrt(n)
    half_width = _t_quantile(n - 1) * standard_error
    p = min(1.0, 2.0 * float(stdtr(n - 1, -abs(mean / standard_error))))
    tested = PairedComparison(
        n=n,
        difference=mean,
        ci_low=mean - half_width,
        ci_high=mean + half_width,
        p=p,
        p_holm=p,
        effect_size=mean / sd,
        effect_size_hedges=mean / sd * _hedges_factor(n - 1) if n > 2 else None,
        verdict="not distinguishable",
    )
    return _judged(tested, alpha, higher_is_better)


def compare_all(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    alpha: float = ALPHA,
    *,
    higher_is_better: bool = True,
) -> dict[str, PairedComparison]:
    """Compare every method with the baseline; Holm's adjustment covers all of them.

    Args:
        values: By method, by index of the seed; the baseline is one of them.
        baseline: Its name.
        alpha: A smaller adjusted p makes a verdict; with it, the chance that any verdict is false
            stays below alpha however many methods there are.
        higher_is_better: Which sign is "better".

    Returns:
        A comparison by method, in the order given, the baseline left out.

    Raises:
        ValueError: The baseline is not among the methods, or a value is not finite.
    """
    if baseline not in values:
        raise ValueError(f"baseline {baseline!r} is not among {', '.join(values) or 'no methods'}")
    single = {
        name: compare_paired(by_seed, values[baseline])
        for name, by_seed in values.items()
        if name != baseline
    }
    adjusted = holm([comparison.p for comparison in single.values()])
    return {
        name: _judged(dataclasses.replace(comparison, p_holm=p), alpha, higher_is_better)
        for (name, comparison), p in zip(single.items(), adjusted, strict=True)
    }


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for their number by Holm's step-down method.

    Args:
        p_values: From 0 to 1; None is a test that was not made, and is not counted.

    Returns:
        Adjusted values in the same order, at most 1; None stays None.

    Raises:
        ValueError: A value is NaN or outside 0 to 1.
    """
    tested = [(p, index) for index, p in enumerate(p_values) if p is not None]
    for p, index in tested:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p value {index} is {p}, not from 0 to 1")
    adjusted: list[float | None] = [None] * len(p_values)
    reached = 0.0
    for rank, (p, index) in enumerate(sorted(tested)):
        reached = max(reached, min(1.0, (len(tested) - rank) * p))
        adjusted[index] = reached
    return adjusted


def format_mean_sd(summary: Summary, scale: float = 100.0, digits: int = 2) -> str:
    """Return ``76.24 ± 0.31``: mean and standard deviation, or the mean alone for one value.

    Args:
        summary: Of shares from 0 to 1, where the scale is left alone.
        scale: What the numbers are multiplied with; 100 makes percent of shares.
        digits: Behind the point.
    """
    mean = f"{summary.mean * scale:.{digits}f}"
    return mean if summary.sd is None else f"{mean} ± {summary.sd * scale:.{digits}f}"


def sentence(name: str, baseline: str, comparison: PairedComparison, unit: str = "points") -> str:
    """Say in one plain sentence what a comparison found.

    Args:
        name: The method.
        baseline: What it is compared with.
        comparison: Of shares from 0 to 1 where the unit is points (percent).
        unit: "points", or the unit of the values themselves.
    """
    scale, digits = (100.0, 2) if unit == "points" else (1.0, 4)
    pairs = format_count(comparison.n, "seed")
    if comparison.difference is None:
        return f"{name} cannot be compared with {baseline}: they have no seed in common."
    signed = f"{comparison.difference * scale:+z.{digits}f} {unit}"
    if comparison.p is None:
        return (
            f"{name} cannot be tested against {baseline}: {comparison.reason} ({signed}, {pairs})."
        )
    if comparison.reason is not None:
        return f"{name} cannot be told apart from {baseline}: {comparison.reason} ({pairs})."
    if comparison.verdict == "not distinguishable":
        evidence = _evidence(comparison, comparison.ci_low, comparison.ci_high, scale, digits)
        return f"{name} cannot be told apart from {baseline}: {signed} ({evidence})."
    low, high = comparison.ci_low, comparison.ci_high
    if comparison.difference < 0 and low is not None and high is not None:
        low, high = -high, -low
    size = f"{abs(comparison.difference) * scale:.{digits}f} {unit}"
    evidence = _evidence(comparison, low, high, scale, digits)
    return f"{name} is {comparison.verdict} than {baseline} by {size} ({evidence})."


def _evidence(
    comparison: PairedComparison,
    low: float | None,
    high: float | None,
    scale: float,
    digits: int,
) -> str:
    p = format_p(comparison.p_holm)
    relation = f"p < {p[1:]}" if p.startswith("<") else f"p = {p}"
    interval = format_interval(low, high, scale, digits)
    return f"{CONFIDENCE:.0%} interval {interval}, {comparison.n} seeds, {relation} after Holm"


def _without_test(differences: Sequence[float], rounding: float) -> PairedComparison | None:
    """Return the comparison where a t test is not possible; None where it is."""
    if len(differences) < 2:
        return PairedComparison(
            n=len(differences),
            difference=differences[0] if differences else None,
            p=None,
            p_holm=None,
            verdict="not distinguishable",
            reason="needs at least two seeds",
        )
    if max(map(abs, differences)) <= rounding:
        return PairedComparison(
            n=len(differences),
            difference=0.0,
            p=1.0,
            p_holm=1.0,
            effect_size=0.0,
            effect_size_hedges=0.0,
            verdict="not distinguishable",
            reason="both are equal at every seed",
        )
    if max(differences) - min(differences) <= rounding:
        return PairedComparison(
            n=len(differences),
            difference=math.fsum(differences) / len(differences),
            p=None,
            p_holm=None,
            verdict="not distinguishable",
            reason="the difference is the same at every seed, so that its spread is unknown",
        )
    return None


def _judged(
    comparison: PairedComparison, alpha: float, higher_is_better: bool
) -> PairedComparison:
    if comparison.p_holm is None or comparison.difference is None or comparison.p_holm >= alpha:
        return dataclasses.replace(comparison, verdict="not distinguishable")
    better = (comparison.difference > 0) == higher_is_better
    return dataclasses.replace(comparison, verdict="better" if better else "worse")


def _mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    if min(values) == max(values):
        # The mean of equal values may be off by one rounding, and would leave a spread.
        return values[0], 0.0
    squares = math.fsum((value - mean) * (value - mean) for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))


def _hedges_factor(degrees: int) -> float:
    """Return the exact factor that frees Cohen's d of its bias (Hedges 1981); degrees > 1."""
    return math.exp(
        math.lgamma(degrees / 2) - math.lgamma((degrees - 1) / 2) - 0.5 * math.log(degrees / 2)
    )


def _t_quantile(degrees: int) -> float:
    """Return what the t distribution stays within, with the probability of every interval here."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def _check_finite(values: Iterable[float]) -> None:
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"a value is {value}; only finite values can be compared")
