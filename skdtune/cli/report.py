"""``skdtune report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from skdtune.cli.application import Application, common_options, pass_application, say

if TYPE_CHECKING:
    from skdtune.analysis.evaluated import Comparison
    from skdtune.analysis.study_record import StudyRecord


@click.command()
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="report.html",
    show_default=True,
    help="The page; one that is there is replaced.",
)
@click.option(
    "--no-dashboard", is_flag=True, help="Do not add the key figures to optuna-dashboard too."
)
@common_options
@pass_application
def report(
    application: Application, studies: tuple[str, ...], output: Path, no_dashboard: bool
) -> None:
    """Write one HTML page about one or several studies: results, curves, parameters, settings.

    A STUDY may also be the family of several, or a final evaluation. The page needs no network
    and no server: open it, keep it, send it.
    """
    from skdtune.queue.stored_study import expand_family
    from skdtune.views.report_page.data import read_studies
    from skdtune.views.report_page.page import render, write

    names = [name for study in studies for name in expand_family(study, storage=application.url)]
    records = read_studies(names, storage=application.url)
    comparison = _compared(application, records)
    if comparison is None:
        write(output, render(records))
    else:
        from skdtune.analysis.comparison import comparison_table

        sentences = [row.sentence for row in comparison.rows]
        write(
            output, render(records, comparison=comparison_table(comparison), sentences=sentences)
        )
    say(application, f"{output}  {output.stat().st_size / 1e6:.1f} MB")
    if not no_dashboard:
        _add_to_dashboard(application, records)


def _compared(application: Application, records: tuple[StudyRecord, ...]) -> Comparison | None:
    """Compare the studies of the page that were evaluated; None if there are not two of them."""
    from skdtune.analysis.evaluation_comparison import compare_winners, winner
    from skdtune.errors import StudyError

    winners = {}
    for record in records:
        try:
            winners[record.name] = winner(record.name, storage=application.url)
        except StudyError:
            # A page about a study that is not evaluated yet is a page without that row.
            continue
    if len(winners) < 2:
        return None
    try:
        return compare_winners(winners)
    except StudyError as error:
        click.echo(f"the page has no comparison: {error}", err=True)
        return None


def _add_to_dashboard(application: Application, records: tuple[StudyRecord, ...]) -> None:
    from contextlib import closing

    from skdtune.queue.storage import DATABASE_ERRORS
    from skdtune.queue.stored_study import load_study
    from skdtune.views.dashboard.figures import save_dashboard_figures

    for record in records:
        try:
            with closing(load_study(record.name, storage=application.url)) as stored:
                number = save_dashboard_figures(stored, record)
        except DATABASE_ERRORS:
            # The page is written, and a storage that may only be read is no reason to fail.
            click.echo(f"{record.name}: its figures could not be added to the dashboard", err=True)
            continue
        say(application, f"{record.name}: {number} figures added to the dashboard")
