"""``skdtune compare``: evaluated studies beside a baseline."""

from __future__ import annotations

import click

from skdtune.cli.application import Application, common_options, console, pass_application
from skdtune.cli.table_formats import chosen_format, format_options, print_table


@click.command()
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True)
@click.option(
    "--baseline",
    metavar="STUDY",
    help="What the others are held against.  [default: the first with plain cross-entropy, "
    "else the first]",
)
@format_options
@common_options
@pass_application
def compare(
    application: Application,
    /,
    studies: tuple[str, ...],
    baseline: str | None,
    **formats: bool,
) -> None:
    """Compare the final evaluations of STUDY... seed by seed with a baseline.

    Each STUDY is a study that was evaluated, its evaluation, or the family of several. Of a study
    with several candidates the best one of the search counts.
    """
    from skdtune.analysis.comparison import comparison_data, comparison_table
    from skdtune.analysis.evaluation_comparison import compare_evaluations

    chosen = chosen_format(formats)
    comparison = compare_evaluations(studies, baseline=baseline, storage=application.url)
    print_table(comparison_table(comparison), chosen, comparison_data(comparison))
    if chosen is None:
        for row in comparison.rows:
            console().print(row.sentence, soft_wrap=True)
