"""What stands below a comparison's table: what was found, and what the columns are."""

from __future__ import annotations

from skdtune.analysis.evaluated import Comparison
from skdtune.analysis.tables import format_count


def findings(comparison: Comparison) -> list[str]:
    """Say which methods were found better, worse, or neither; nulls as plainly as the others."""
    if not comparison.others:
        return ["There is nothing to compare the baseline with."]
    said = _verdicts(comparison)
    # Every row without a common test, and why that is so.
    said += [
        f"{row.label}: {row.accuracy_vs_baseline.reason}."
        for row in comparison.others
        if row.accuracy_vs_baseline is not None and row.accuracy_vs_baseline.reason is not None
    ]
    # The rows that share the highest accuracy, as printed.
    printed = {row.label: f"{row.accuracy.mean * 100:.2f}" for row in comparison.rows}
    highest = max(row.accuracy.mean for row in comparison.rows)
    best = [name for name, text in printed.items() if text == f"{highest * 100:.2f}"]
    if len(best) > 1:
        said.append(f"Tie for the highest mean accuracy, {printed[best[0]]}%: {', '.join(best)}.")
    return said


def _verdicts(comparison: Comparison) -> list[str]:
    names: dict[str, list[str]] = {"better": [], "worse": [], "not distinguishable": []}
    for row in comparison.others:
        paired = row.accuracy_vs_baseline
        if paired is not None and paired.p is not None:
            names[paired.verdict].append(row.label)
    if not any(names.values()):
        return ["No test was possible: whether a method differs from the baseline is open."]
    level = f"at the {comparison.alpha:.0%} level"
    said = [
        f"{verdict.capitalize()} than {comparison.baseline} {level}: {', '.join(names[verdict])}."
        for verdict in ("better", "worse")
        if names[verdict]
    ]
    if not said:
        said = [f"No method can be told apart from {comparison.baseline} {level}."]
    elif names["not distinguishable"]:
        nulls = ", ".join(names["not distinguishable"])
        said.append(f"Not distinguishable from {comparison.baseline}: {nulls}.")
    if names["not distinguishable"]:
        said.append(
            "Not distinguishable is not equal: the interval says what differences remain possible."
        )
    return said


def explanations(comparison: Comparison) -> list[str]:
    """Say what the columns are."""
    counts = sorted({row.accuracy.n for row in comparison.rows})
    seeds = (
        format_count(counts[-1], "seed")
        if len(counts) == 1
        else f"{counts[0]} to {counts[-1]} seeds"
    )
    said = [
        f"Baseline: {comparison.baseline}. Mean ± standard deviation over {seeds} per method "
        "(sample standard deviation, not the error of the mean).",
    ]
    if not comparison.others:
        return said
    tests = sum(
        row.accuracy_vs_baseline is not None and row.accuracy_vs_baseline.p is not None
        for row in comparison.others
    )
    said += [
        "Difference: method minus baseline in points (percent of the test images), mean over "
        "common seeds, with its 95% t interval, not adjusted for the number of methods.",
        f"p: two-sided paired t test over common seeds, adjusted by Holm for "
        f"{format_count(tests, 'test')}; d_z: mean over standard deviation of the differences.",
        f"* differs from the baseline in ECE or NLL (lower is better), Holm within each metric, "
        f"p < {comparison.alpha}.",
        "Images (every view counted), device time and peak memory are those of one training, in "
        "brackets as multiples of the baseline's; times compare only on one kind of machine.",
    ]
    said.append(
        "Each method stands there with the one setting that its search found; how much another "
        "search would change it is not in the intervals."
    )
    if len(comparison.others) > 1:
        said.append("Differences between two methods that are not the baseline are untested.")
    return said
