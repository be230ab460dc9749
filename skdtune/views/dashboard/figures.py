"""Key figures of a study for optuna-dashboard, which shows them among its own."""

from __future__ import annotations

from skdtune.analysis.study_record import StudyRecord
from skdtune.describe.space import StageSubsets
from skdtune.queue.stored_study import StoredStudy
from skdtune.views.report_page import figures, parameter_figures
from skdtune.views.report_page.figure_parts import Figure, short

#: Names of the figures in the storage; the same ones are overwritten each time.
PREFIX = "skdtune-"


def dashboard_figures(study: StudyRecord) -> dict[str, Figure]:
    """Return the figures by name, without those that have nothing to show yet."""
    drawn = {"ranked-outputs": ("Ranked outputs", figures.ranked_outputs([study]))}
    if study.picks_best:
        drawn["best-so-far"] = ("Best so far", figures.best_so_far([study], "epochs"))
        drawn["importance"] = ("Parameter importance", parameter_figures.importance(study))
        for path, param in study.spec.search.items():
            if isinstance(param, StageSubsets):
                title = f"Layer choice, {short(path)}"
                drawn[f"layer-choice-{path}"] = (
                    title,
                    parameter_figures.stage_choice(study, path),
                )
    return {
        f"{PREFIX}{name}": _titled(figure, title)
        for name, (title, figure) in drawn.items()
        if figure is not None
    }


def _titled(figure: Figure, title: str) -> Figure:
    """Give a figure what a page gives around it: a title, and colours for white and for black."""
    # Its own size fits a page, the dashboard has another one.
    layout = {key: value for key, value in figure["layout"].items() if key != "height"}
    layout |= {
        "title": {"text": title, "x": 0.02},
        "margin": layout["margin"] | {"t": 56},
        "font": {"color": "#7d8590"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#7d8590", "activecolor": "#2f7fc1"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        # Without it plotly's default would be stored along, longer than the figure.
        "template": {},
    }
    for axis in ("xaxis", "yaxis"):
        layout[axis] = layout[axis] | {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False}
    return {**figure, "layout": layout}


def save_dashboard_figures(stored: StoredStudy, study: StudyRecord) -> int:
    """Write a study's figures into its storage, for the dashboard.

    Returns:
        The number of figures written.
    """
    import plotly.graph_objects as go  # type: ignore[import-untyped, unused-ignore]
    from optuna_dashboard import save_plotly_graph_object

    drawn = dashboard_figures(study)
    for name, figure in drawn.items():
        save_plotly_graph_object(stored.study, go.Figure(figure), graph_object_id=name)
    return len(drawn)
