"""``skdtune rename``."""

from __future__ import annotations

import click

from skdtune.cli.application import Application, common_options, pass_application, say


@click.command()
@click.argument("study")
@click.argument("new_name")
@common_options
@pass_application
def rename(application: Application, study: str, new_name: str) -> None:
    """Call STUDY by NEW_NAME from now on, and its final evaluation NEW_NAME.test.

    It is the same study: trials, checkpoints, evaluations and the hash of its spec stay. While
    workers train it, it is refused.
    """
    from skdtune.queue.renaming import rename_study
    from skdtune.queue.storage import open_storage, require_writable

    opened = open_storage(application.url)
    try:
        require_writable(opened)
        for old, new in rename_study(opened, study, new_name).items():
            say(application, f"{old} is called {new} now")
    finally:
        opened.engine.dispose()
