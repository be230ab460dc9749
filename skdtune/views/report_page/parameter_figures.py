"""Figures of what the parameters did: their importance, slices, and the choice of stages."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from skdtune.analysis.study_record import StudyRecord
from skdtune.analysis.trial_record import TrialRecord
from skdtune.describe.space import AnyParam, Choice, Scalar, StageSubsets
from skdtune.views.report_page.figure_parts import (
    MUTED,
    PALETTE,
    Figure,
    Trace,
    color_of,
    hoverformat,
    layout_of,
    rounded,
    short,
    tickformat,
    title_of,
)
from skdtune.views.report_page.markup import label


def importance(study: StudyRecord) -> Figure | None:
    """Draw the share of each parameter in reaching the best trials, largest on top."""
    if not study.importance:
        return None
    shares = list(study.importance.items())[::-1]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [rounded(share) for _, share in shares],
        "y": [label(short(path)) for path, _ in shares],
        "text": [f"{share:.0%}" for _, share in shares],
        "textposition": "auto",
        "cliponaxis": False,
        "marker": {"color": PALETTE[0]},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }
    layout = layout_of("share", "")
    layout["xaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    layout["yaxis"] = {"automargin": True, "type": "category"}
    return {"data": [trace], "layout": layout | {"height": 90 + 30 * len(shares)}}


def slice_of(study: StudyRecord, path: str) -> Figure | None:
    """Draw the objective over the values of one parameter."""
    param = study.spec.search[path]
    options = None if not isinstance(param, (Choice, StageSubsets)) else param.options()
    is_log = getattr(param, "log", False)
    place = _placed(options) if options is not None else _as_positive if is_log else _as_number
    placed = [
        (trial, x)
        for trial in study.trials
        if trial.value is not None
        and trial.state in ("complete", "pruned")
        and (x := place(trial.params.get(path), trial.number)) is not None
    ]
    if not placed:
        return None
    layout = layout_of(short(path), "", height=230)
    layout["margin"] = {"l": 52, "r": 12, "t": 8, "b": 40}
    name = study.value_name
    formats = {"tickformat": tickformat(name), "hoverformat": hoverformat(name)}
    layout["yaxis"] |= {**formats, **_value_range(placed)}
    layout["xaxis"] |= (
        _category_axis(options) if options is not None else _range_axis(param, placed)
    )
    return {"data": _points(study, placed, path), "layout": layout | {"showlegend": False}}


def stage_choice(study: StudyRecord, path: str) -> Figure | None:
    """Draw the objective by the stages that were chosen, with the median of each choice."""
    param = study.spec.search[path]
    if not isinstance(param, StageSubsets):
        return None
    return strips(study, param.options(), lambda trial: trial.params.get(path), short(path), path)


def candidates(study: StudyRecord) -> Figure | None:
    """Draw the seeds of each candidate of a final evaluation beside each other."""
    kind = study.spec.kind
    if not kind.candidates:
        return None
    return strips(
        study,
        [candidate.trial for candidate in kind.candidates],
        lambda trial: candidate.trial if (candidate := kind.candidate_of(trial.number)) else None,
        f"trial of {kind.source}",
    )


def strips(
    study: StudyRecord,
    options: Sequence[Scalar],
    option_of: Callable[[TrialRecord], Any],
    title: str,
    path: str = "",
) -> Figure | None:
    """Draw the objective of the trials of each option beside each other.

    Args:
        study: The study.
        options: The options, in their order.
        option_of: Which one a trial has.
        title: What the options are.
        path: The parameter, for the hover text.
    """
    place = _placed(options)
    judged = [t for t in study.trials if t.value is not None and t.state in ("complete", "pruned")]
    placed = [(t, x) for t in judged if (x := place(option_of(t), t.number)) is not None]
    complete = [(t, x) for t, x in placed if t.state == "complete"]
    if not complete:
        return None
    layout = layout_of(title, study.value_name)
    layout["xaxis"] |= _category_axis(options)
    layout["yaxis"] |= _value_range(placed)
    medians = _medians(options, [(option_of(t), t.value) for t, _ in complete])
    return {
        "data": [medians, *_points(study, placed, path)],
        "layout": layout | {"showlegend": True},
    }


def _medians(options: Sequence[Scalar], values: Sequence[tuple[Any, float | None]]) -> Trace:
    by_option = {
        index: [value for given, value in values if given == option and value is not None]
        for index, option in enumerate(options)
    }
    known = {index: own for index, own in by_option.items() if own}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "median of the complete ones",
        "x": list(known),
        "y": [rounded(statistics.median(own)) for own in known.values()],
        "customdata": [len(own) for own in known.values()],
        "marker": {
            "symbol": "line-ew-open",
            "size": 34,
            "color": PALETTE[2],
            "line": {"width": 3, "color": PALETTE[2]},
        },
        "hovertemplate": "median of %{customdata}: %{y}<extra></extra>",
    }


def _points(
    study: StudyRecord, placed: Sequence[tuple[TrialRecord, float]], path: str
) -> list[Trace]:
    """Draw trials as points: pruned ones hollow, the best and the published setting apart."""
    shown = study.shown if study.picks_best else ()
    apart = {trial.number for trial in shown}
    groups = [
        ("pruned", [p for p in placed if p[0].state == "pruned"], MUTED, "circle-open", 6),
        (
            "complete",
            [p for p in placed if p[0].state == "complete" and p[0].number not in apart],
            PALETTE[0],
            "circle",
            6,
        ),
    ]
    for trial in reversed(shown):
        symbol = "star" if trial == study.best else "diamond"
        own = [point for point in placed if point[0].number == trial.number]
        groups.append((title_of(study, trial), own, color_of(study, trial), symbol, 13))

    def customdata(trial: TrialRecord) -> list[Any]:
        value = trial.params.get(path, "")
        return [trial.number, label(f"{value:.4g}" if isinstance(value, float) else str(value))]

    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [rounded(x) for _, x in points],
            "y": [rounded(trial.value) for trial, _ in points],
            "customdata": [customdata(trial) for trial, _ in points],
            "marker": {"color": color, "symbol": symbol, "size": size, "opacity": 0.8},
            "hovertemplate": "trial %{customdata[0]}: %{y}<br>%{customdata[1]}<extra></extra>",
        }
        for name, points, color, symbol, size in groups
        if points
    ]


def _as_number(value: Any, _number: int) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _as_positive(value: Any, _number: int) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def _placed(options: Sequence[Scalar]) -> Callable[[Any, int], float | None]:
    """Place an option on a numeric axis, a little aside by the trial's number."""
    places = {str(option): index for index, option in enumerate(options)}

    def place(value: Any, number: int) -> float | None:
        index = places.get(str(value))
        # The golden ratio spreads any run of numbers evenly, and the same way each time.
        return None if index is None else index + (number * 0.618034 % 1 - 0.5) * 0.4

    return place


def _value_range(placed: Sequence[tuple[TrialRecord, float]]) -> dict[str, Any]:
    """Show the complete trials well; far below them lie those that were pruned early."""
    values = [t.value for t, _ in placed if t.state == "complete" and t.value is not None]
    if not values:
        return {}
    span = max(values) - min(values) or 0.05
    return {"range": [rounded(min(values) - 0.5 * span), rounded(max(values) + 0.12 * span)]}


def _range_axis(param: AnyParam, placed: Sequence[tuple[TrialRecord, float]]) -> dict[str, Any]:
    """Show the whole range that was searched, so that a point at its end looks like one."""
    xs = [x for _, x in placed] + [float(end) for end in param.examples()]
    if not getattr(param, "log", False):
        margin = 0.04 * (max(xs) - min(xs))
        return {"range": [min(xs) - margin, max(xs) + margin]}
    low, high = math.log10(min(xs)), math.log10(max(xs))
    margin = 0.04 * (high - low)
    # A few round numbers of every decade, the fewer the more decades there are.
    digits = (1, 2, 5) if high - low <= 1.4 else (1, 3) if high - low <= 2.2 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    return {
        "type": "log",
        "range": [low - margin, high + margin],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _category_axis(options: Sequence[Scalar]) -> dict[str, Any]:
    return {
        "tickvals": list(range(len(options))),
        "ticktext": [label(option) for option in options],
        "range": [-0.6, len(options) - 0.4],
        "zeroline": False,
    }
