"""``skdtune status``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from skdtune.cli.application import (
    Application,
    common_options,
    console,
    echo_json,
    json_option,
    pass_application,
)

if TYPE_CHECKING:
    from skdtune.analysis.study_results import Progress


@click.command()
@click.argument("study", required=False)
@json_option
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C or the end.")
@common_options
@pass_application
def status(application: Application, study: str | None, as_json: bool, watch: bool) -> None:
    """Show trials by state, the best so far, the workers and the time left."""
    if watch:
        _watch(application, study)
        return
    shown, unread = _read_progress(application, study)
    if as_json:
        data = [progress.to_dict() for progress in shown]
        # A family is a list, as all studies are.
        echo_json(data[0] if study and len(data) == 1 else data)
        return
    from skdtune.cli.study_view import progress_view

    for progress in shown:
        console().print(progress_view(progress))
    if not shown and not unread:
        click.echo("no study yet: skdtune create-study digits-drg-dsr")


def _read_progress(application: Application, study: str | None) -> tuple[list[Progress], int]:
    """Return the progress of each study, and how many cannot be read, which is said."""
    from contextlib import closing

    from skdtune.analysis.mixture import read_mixtures
    from skdtune.analysis.study_results import read_progress
    from skdtune.errors import SpecError, StudyError
    from skdtune.queue.storage import open_storage
    from skdtune.queue.stored_study import expand_family, load_study, study_names

    if study:
        names = expand_family(study, storage=application.url)
    else:
        opened = open_storage(application.url)
        names = study_names(opened)
        opened.engine.dispose()
    shown = []
    for name in names:
        try:
            with closing(load_study(name, storage=application.url)) as stored:
                shown.append(read_progress(stored, mixed=read_mixtures(stored)))
        except (SpecError, StudyError) as error:
            # One that cannot be read must not hide the others.
            if study:
                raise
            click.echo(f"skdtune: {error}", err=True)
    return shown, len(names) - len(shown)


def _watch(application: Application, study: str | None) -> None:
    from rich.console import Group
    from rich.live import Live

    from skdtune.cli.study_view import progress_view

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            shown, unread = _read_progress(application, study)
            if not shown:
                nothing = "" if unread else "no study yet: skdtune create-study digits-drg-dsr"
                live.update(nothing, refresh=True)
                return
            live.update(Group(*(progress_view(progress) for progress in shown)), refresh=True)
            if all(progress.finished for progress in shown):
                return
            time.sleep(2)
