"""``skdtune resume``."""

from __future__ import annotations

import click

from skdtune.cli.application import Application, common_options, pass_application, say
from skdtune.cli.named_studies import names_for, opened_for_writing


@click.command()
@click.argument("study")
@common_options
@pass_application
def resume(application: Application, study: str) -> None:
    """Let workers take trials of STUDY again, after it was paused."""
    from skdtune.queue import pausing

    for name in names_for(application, study):
        with opened_for_writing(application, name) as stored:
            was_paused = pausing.resume(stored.engine, stored.study_id)
            text = f"{name} goes on; start workers with `skdtune launch {name}`"
            say(application, text if was_paused else f"{name} was not paused")
