"""``skdtune storage``: set up, check, upgrade and tidy the SQL storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skdtune.cli.application import Application, common_options, pass_application

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from skdtune.queue.abandoned_trials import AbandonedTrial


@click.group()
def storage() -> None:
    """Set up, check, upgrade and tidy the storage."""


@storage.command()
@common_options
@pass_application
def init(application: Application) -> None:
    """Make the tables where they are missing; safe to repeat."""
    from skdtune.queue.storage import init_storage, masked, parse_url

    init_storage(application.url)
    click.echo(f"storage {masked(parse_url(application.url))} is ready")


@storage.command()
@common_options
@pass_application
def check(application: Application) -> None:
    """Check that the storage can be reached and has the schema of this version."""
    from skdtune.queue.storage import masked, open_storage, parse_url
    from skdtune.queue.stored_study import study_names

    opened = open_storage(application.url)
    number = len(study_names(opened))
    click.echo(f"storage {masked(parse_url(application.url))} is fine; {number} studies")


@storage.command()
@common_options
@pass_application
def upgrade(application: Application) -> None:
    """Bring the tables to this version's schema; stop the workers and make a backup before."""
    from skdtune.queue.storage import masked, parse_url, upgrade_storage

    upgrade_storage(application.url)
    click.echo(f"storage {masked(parse_url(application.url))} has the schema of this version")


@storage.command()
@click.option(
    "--foreign",
    is_flag=True,
    help="Also those that somebody asked plain Optuna for and did not tell of; asks before.",
)
@click.option("--yes", is_flag=True, help="Do not ask: nobody trains them any more.")
@common_options
@pass_application
def reap(application: Application, foreign: bool, yes: bool) -> None:
    """Give trials back to the queue whose worker fell silent."""
    from skdtune.queue.leases import reap as reap_leases
    from skdtune.queue.storage import open_storage, require_writable

    opened = open_storage(application.url)
    require_writable(opened)
    numbers = reap_leases(opened.engine)
    click.echo(f"{len(numbers)} trials wait again")
    if foreign:
        _reap_foreign(opened.engine, yes)


def _reap_foreign(engine: Engine, yes: bool) -> None:
    """Give back what plain Optuna has in hand, if a person says that nobody trains it."""
    from skdtune.queue.abandoned_trials import find_abandoned, give_back_abandoned

    found = find_abandoned(engine)
    if not found:
        click.echo("no trial runs outside of skdtune")
        return
    if not yes:
        click.echo(f"in the hands of plain Optuna: {_by_study(found)}")
        click.confirm("Somebody may still train them. Give them back?", abort=True)
    given = give_back_abandoned(engine, found)
    click.echo(f"{len(given)} foreign trials wait again: {_by_study(given)}" if given else "")


def _by_study(trials: Sequence[AbandonedTrial]) -> str:
    numbers: dict[str, list[str]] = {}
    for trial in trials:
        numbers.setdefault(trial.study, []).append(str(trial.number))
    return "; ".join(f"{study} {', '.join(own)}" for study, own in numbers.items())
