"""Key figures of a study for optuna-dashboard, which shows them among its own."""

from __future__ import annotations

from skdtune.report_page import figures, parameter_figures
from skdtune.report_page.figure_parts import Figure, short
from skdtune.report_page.records import StudyRecord
from skdtune.search.study import StoredStudy
from skdtune.space import StageSubsets

#: Names of the figures in the storage; the same ones are overwritten each time.
PREFIX = "skdtune-"


def dashboard_figures(study: StudyRecord) -> dict[str, Figure]:
    """Return the figures by name, without those that have nothing to show yet."""
    found = {"ranked-outputs": ("Ranked outputs", figures.ranked_outputs([study]))}
    if not study.is_evaluation:
        found["best-so-far"] = ("Best so far", figures.best_so_far([study], "epochs"))
        found["importance"] = ("Parameter importance", parameter_figures.importance(study))
        for path, param in study.spec.search.items():
            if isinstance(param, StageSubsets):
                title = f"Layer choice, {short(path)}"
                found[f"layer-choice-{path}"] = (
                    title,
                    parameter_figures.stage_choice(study, path),
                )
    return {
        f"{PREFIX}{name}": _titled(figure, title)
        for name, (title, figure) in found.items()
        if figure is not None
    }


def _titled(figure: Figure, title: str) -> Figure:
    """Say what it is: on the dashboard a figure has no section around it."""
    layout = figure["layout"]
    margin = layout["margin"] | {"t": 56}
    # Its own size fits a page, the dashboard has another one.
    layout = {key: value for key, value in layout.items() if key != "height"}
    return {**figure, "layout": layout | {"title": {"text": title}, "margin": margin}}


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
