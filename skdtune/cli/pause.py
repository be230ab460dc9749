"""``skdtune pause``."""

from __future__ import annotations

import click

from skdtune.cli.application import Application, common_options, pass_application, say
from skdtune.cli.named_studies import names_for, opened_for_writing


@click.command()
@click.argument("study")
@click.option("--reason", default="paused by hand", show_default=True, help="What status shows.")
@common_options
@pass_application
def pause(application: Application, study: str, reason: str) -> None:
    """Let nobody take trials of STUDY; those in hand are finished."""
    from skdtune.queue import pausing

    for name in names_for(application, study):
        with opened_for_writing(application, name) as stored:
            pausing.pause(stored.engine, stored.study_id, reason)
            say(application, f"{name} is paused; `skdtune resume {name}` lets it go on")
