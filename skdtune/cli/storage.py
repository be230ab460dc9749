"""``skdtune storage``: set up, check, upgrade and tidy the SQL storage."""

from __future__ import annotations

import click

from skdtune.cli.application import Application, common_options, pass_application


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
@common_options
@pass_application
def reap(application: Application) -> None:
    """Give trials back to the queue whose worker fell silent."""
    from skdtune.queue.leases import reap as reap_leases
    from skdtune.queue.storage import open_storage, require_writable

    opened = open_storage(application.url)
    require_writable(opened)
    numbers = reap_leases(opened.engine)
    click.echo(f"{len(numbers)} trials wait again")
