"""``skdtune compare``: evaluated studies beside a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skdtune.cli.application import Application, common_options, console, pass_application
from skdtune.cli.tables import chosen_format, format_options, print_table

if TYPE_CHECKING:
    from skdtune.comparison import EvaluatedStudy


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
    from skdtune.comparison import compare_studies, comparison_data, comparison_table

    chosen = chosen_format(formats)
    names = _expand(application, [*studies, *([baseline] if baseline else [])])
    found = {name: _winner(application, name) for name in names}
    against = found.get(baseline) if baseline else None
    comparison = compare_studies(
        list({study.study: study for study in found.values()}.values()),
        baseline=against.study if against else baseline or _default_baseline(found),
    )
    print_table(comparison_table(comparison), chosen, comparison_data(comparison))
    if chosen is None:
        for row in comparison.rows:
            console().print(row.sentence, soft_wrap=True)


def _expand(application: Application, names: list[str]) -> list[str]:
    from skdtune.search.study import expand_family

    expanded = (expand_family(name, storage=application.url) for name in names)
    return list(dict.fromkeys(name for family in expanded for name in family))


def _winner(application: Application, name: str) -> EvaluatedStudy:
    """Return the best candidate of the search; which one tests best must not matter."""
    from skdtune.errors import StudyError
    from skdtune.evaluation_results import evaluation_results

    results = evaluation_results(name, storage=application.url)
    winner = results.candidates[0]
    if not winner.seeds:
        raise StudyError(
            f"study {results.name!r} has no complete training yet: skdtune launch {results.name}"
        )
    return winner


def _default_baseline(found: dict[str, EvaluatedStudy]) -> str:
    from skdtune.evaluation_results import PLAIN_METHOD

    plain = [study.study for study in found.values() if study.method == PLAIN_METHOD]
    return plain[0] if plain else next(iter(found.values())).study
