"""What all figures share: colours, names of trials, axes, rounding.

A figure is ``{"data": [...], "layout": {...}}``, plotly's own plain data, without colours of text,
grid and background: the page adds those of its theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from skdtune.analysis.study_record import StudyRecord
from skdtune.analysis.trial_record import TrialRecord
from skdtune.describe.value_format import is_accuracy
from skdtune.views.report_page.markup import label

Figure = dict[str, Any]
Trace = dict[str, Any]

#: Told apart also by people who see few colours, on white and on black.
PALETTE = ("#2f7fc1", "#d9822b", "#2a9d78", "#b8589f", "#b39b1d", "#c8504b", "#6f74d2", "#3ba3b8")
MUTED = "#8b919a"
BEST = "#d9822b"
PUBLISHED = "#b8589f"
#: Complete trials, from the lower half to the best tenth.
RANKED = (("lower half", "#a9bfd6"), ("upper half", "#5c97cf"), ("best tenth", "#2467c0"))


def rounded(value: float | None) -> float | None:
    """Round to five digits; None for what is no finite number."""
    short = None if value is None else float(f"{value:.5g}")
    # The largest numbers are rounded to infinity.
    return short if short is not None and math.isfinite(short) else None


def title_of(study: StudyRecord, trial: TrialRecord) -> str:
    """Name one of the trials that are shown apart."""
    if not study.picks_best:
        return f"trial {trial.number}, first seed"
    if trial == study.best and trial == study.published:
        return "trial 0, published and best"
    return f"trial {trial.number}, best" if trial == study.best else "trial 0, published"


def color_of(study: StudyRecord, trial: TrialRecord) -> str:
    """Return the colour of one of the trials that are shown apart."""
    return BEST if trial == study.best else PUBLISHED


def short(path: str) -> str:
    """Write a parameter's path as figures and tables show it."""
    return path.removeprefix("method.")


def common_name(names: Sequence[str]) -> str:
    """Return what the objectives of several studies are called."""
    return names[0] if len(set(names)) == 1 else "objective"


def tickformat(name: str) -> str:
    """Return plotly's format of an axis: an accuracy in per cent."""
    return ".2~%" if is_accuracy(name) else ""


def hoverformat(name: str) -> str:
    """Return plotly's format of a value in a hover text."""
    return ".2%" if is_accuracy(name) else ".5g"


def layout_of(x_title: str, y_title: str, height: int = 380) -> dict[str, Any]:
    """Lay a figure out: its axes, margins and legend below."""
    return {
        "height": height,
        "hovermode": "closest",
        "margin": {"l": 64, "r": 16, "t": 28, "b": 48},
        "xaxis": {"title": {"text": label(x_title), "standoff": 8}, "automargin": True},
        "yaxis": {
            "title": {"text": label(y_title), "standoff": 8},
            "tickformat": tickformat(y_title),
            "hoverformat": hoverformat(y_title),
            "automargin": True,
        },
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
    }
