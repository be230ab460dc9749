"""Figures of how the trials went: best so far, learning curves, ranked outputs.

Pure functions from records to plotly's own plain data; None where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from skdtune.analysis.study_record import StudyRecord
from skdtune.analysis.trial_record import TrialRecord
from skdtune.views.report_page.figure_parts import (
    MUTED,
    PALETTE,
    RANKED,
    Figure,
    Trace,
    color_of,
    common_name,
    layout_of,
    rounded,
    title_of,
)
from skdtune.views.report_page.markup import label

_SHORT_CURVE_EPOCHS = 30


def best_so_far(studies: Sequence[StudyRecord], by: Literal["trials", "epochs"]) -> Figure | None:
    """Draw the best objective over the trials that ended, or over the epochs they took."""
    traces = []
    for index, study in enumerate(studies):
        if points := best_points(study, by):
            xs, ys, numbers = zip(*points, strict=True)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": label(study.name),
                    "x": list(xs),
                    "y": [rounded(y) for y in ys],
                    "customdata": list(numbers),
                    "line": {
                        "shape": "hv",
                        "color": PALETTE[index % len(PALETTE)],
                        # Of two studies with one colour the later one is dashed.
                        "dash": "dash" if index // len(PALETTE) % 2 else "solid",
                    },
                    "marker": {"size": 5, "symbol": _symbol(index)},
                    "hovertemplate": f"%{{fullData.name}}<br>%{{x}} {by}: %{{y:.2%}}, "
                    "trial %{customdata}<extra></extra>",
                }
            )
    if not traces:
        return None
    titles = {"trials": "trials that ended", "epochs": "epochs trained"}
    layout = layout_of(titles[by], common_name([study.value_name for study in studies]))
    return {"data": traces, "layout": layout | {"showlegend": len(traces) > 1}}


def best_points(
    study: StudyRecord, by: Literal["trials", "epochs"]
) -> list[tuple[int, float, int]]:
    """List where the best so far changed: trials or epochs passed, value, number of the trial.

    The last point repeats the best where the study stands now.
    """
    points: list[tuple[int, float, int]] = []
    passed = 0
    for trial in sorted(filter(lambda t: t.is_over, study.trials), key=_by_end):
        passed += 1 if by == "trials" else trial.epochs
        better = not points or (trial.value or 0.0) > points[-1][1]
        if trial.state == "complete" and trial.value is not None and better:
            points.append((passed, trial.value, trial.number))
    if points and points[-1][0] < passed:
        points.append((passed, *points[-1][1:]))
    return points


def _by_end(trial: TrialRecord) -> tuple[float, int]:
    return (trial.ended_at or 0.0, trial.number)


def learning_curves(study: StudyRecord) -> Figure | None:
    """Draw what every trial reported after each epoch: a few traces, however many trials.

    As SVG: fifty thousand points are drawn and panned several times faster than by WebGL without a
    graphics card, and a browser keeps only sixteen WebGL drawings alive.
    """
    named = {trial.number for trial in study.shown}
    curves = [trial for trial in study.trials if trial.curve and trial.number not in named]
    longest = max((trial.epochs for trial in study.trials), default=0)
    mode = "lines+markers" if longest <= _SHORT_CURVE_EPOCHS else "lines"
    traces = [
        _curve_trace(name, trials, color, dash, mode)
        for name, trials, color, dash in _curve_groups(curves)
        if trials
    ]
    pruned = [trial for trial in curves if trial.state == "pruned"]
    if pruned:
        traces.append(_ends(pruned))
    traces += [
        _curve_trace(
            f"{title_of(study, trial)}", [trial], color_of(study, trial), "solid", mode, 3
        )
        for trial in reversed(study.shown)
        if trial.curve
    ]
    if not traces:
        return None
    layout = layout_of("epoch", study.curve_name, height=440)
    return {"data": traces, "layout": layout | {"showlegend": True}}


def _curve_groups(
    trials: Sequence[TrialRecord],
) -> Iterable[tuple[str, list[TrialRecord], str, str]]:
    """Sort trials into the groups that get one colour each: name, trials, colour, dash."""
    yield "pruned", [t for t in trials if t.state == "pruned"], MUTED, "dash"
    unfinished = [t for t in trials if t.state in ("failed", "running", "waiting")]
    yield "failed or not finished", unfinished, MUTED, "dot"
    complete = [t for t in trials if t.state == "complete"]
    ranked = sorted(complete, key=lambda t: t.value or 0.0)
    cuts = (0, len(ranked) // 2, len(ranked) - math.ceil(len(ranked) / 10), len(ranked))
    if len(ranked) < 3:
        yield "complete", ranked, RANKED[1][1], "solid"
        return
    for (name, color), start, end in zip(RANKED, cuts, cuts[1:], strict=False):
        yield f"complete, {name}", ranked[start:end], color, "solid"


def _curve_trace(
    name: str, trials: Sequence[TrialRecord], color: str, dash: str, mode: str, width: float = 1.2
) -> Trace:
    """Draw several curves as one trace, with a gap between two of them."""
    xs: list[int | None] = []
    ys: list[float | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        for epoch, value in trial.curve:
            xs.append(epoch)
            ys.append(rounded(value))
            numbers.append(trial.number)
        for column in (xs, ys, numbers):
            column.append(None)
    return {
        "type": "scatter",
        "mode": mode,
        "name": label(name),
        "x": xs[:-1],
        "y": ys[:-1],
        "customdata": numbers[:-1],
        "connectgaps": False,
        "opacity": 0.55 if color == MUTED else 0.9,
        "line": {"color": color, "width": width, "dash": dash},
        "marker": {"size": 4},
        "hovertemplate": "trial %{customdata}<br>epoch %{x}: %{y}<extra></extra>",
    }


def _ends(trials: Sequence[TrialRecord]) -> Trace:
    """Mark where trials were pruned; a curve of one epoch would not be seen else."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "pruned here",
        "x": [trial.epochs for trial in trials],
        "y": [rounded(trial.curve[-1][1]) for trial in trials],
        "customdata": [trial.number for trial in trials],
        "marker": {"symbol": "circle-open", "size": 6, "color": MUTED},
        "hovertemplate": "trial %{customdata}, pruned after epoch %{x}: %{y}<extra></extra>",
    }


def ranked_outputs(studies: Sequence[StudyRecord]) -> Figure | None:
    """Draw the mean ranked output of each study's best trial and trial 0, after first and last."""
    traces = []
    drawn = [
        (index, study, trial, moment, shares)
        for index, study in enumerate(studies)
        for trial in study.shown
        if trial.profile is not None
        for moment, shares in (("first", trial.profile.first), ("last", trial.profile.last))
    ]
    for index, study, trial, moment, shares in drawn:
        is_best = trial == study.best
        trace = {
            "type": "scatter",
            "mode": "lines+markers" if len(shares) <= _SHORT_CURVE_EPOCHS else "lines",
            "name": label(f"{study.name}, {title_of(study, trial)}, {moment} epoch"),
            "x": list(range(1, len(shares) + 1)),
            # A share of zero has no place on a logarithmic axis.
            "y": [rounded(share) if share > 0 else None for share in shares],
            "opacity": 1.0 if is_best else 0.6,
            "line": {
                "color": PALETTE[index % len(PALETTE)],
                "width": 2.5 if is_best else 1.5,
                "dash": "dot" if moment == "first" else "solid",
            },
            "marker": {"size": 5, "symbol": _symbol(index) + ("" if is_best else "-open")},
            "hovertemplate": "%{fullData.name}<br>rank %{x}: %{y:.4g}<extra></extra>",
        }
        traces.append(trace)
    if not traces:
        return None
    layout = layout_of("rank of the class", "mean probability")
    layout["yaxis"] |= {"type": "log", "exponentformat": "power", "dtick": 1}
    layout["xaxis"] |= {"rangemode": "normal"}
    return {"data": traces, "layout": layout | {"showlegend": True}}


def _symbol(index: int) -> str:
    """Tell studies of one colour apart."""
    return ("circle", "square", "diamond", "cross")[index // len(PALETTE) % 4]
