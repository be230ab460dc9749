"""``skdtune delete``: a study with all that belongs to it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from skdtune.cli.application import (
    Application,
    common_options,
    echo_json,
    json_option,
    pass_application,
    printable,
    say,
)
from skdtune.cli.workers_options import checkpoints_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skdtune.queue.deletion import DoomedStudy


@click.command()
@click.argument("study")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@checkpoints_option
@common_options
@pass_application
def delete(
    application: Application, study: str, yes: bool, as_json: bool, checkpoints: str | None
) -> int:
    """Delete STUDY with its trials, final evaluations, kept networks, checkpoints and logs.

    It asks before. While workers train the study it is refused. STUDY may also be the family of
    several studies: all of them go. What other machines hold, checkpoints and logs, stays there.
    """
    from skdtune.cli.named_studies import names_for
    from skdtune.errors import InputError, StudyError
    from skdtune.queue.deletion import delete_studies, deleted_studies, doomed_by, require_idle
    from skdtune.queue.storage import open_storage, require_writable

    opened = open_storage(application.url)
    try:
        require_writable(opened)
        names = names_for(application, study)
        try:
            doomed = doomed_by(opened, names)
        except StudyError:
            # An earlier deletion may have been cut off after its rows were gone.
            if not deleted_studies(opened.engine, [study]):
                raise
            doomed = []
        require_idle(opened, doomed)
        if doomed and not yes:
            if not sys.stdin.isatty():
                raise InputError(f"nobody is there to ask whether {study} shall go: add --yes")
            click.echo(printable("\n".join(map(_described, doomed))), err=True)
            if not click.confirm("Delete all of it?", err=True):
                echo_json([]) if as_json else say(application, "nothing was deleted")
                return 1
        delete_studies(opened, doomed)
        return _clear(application, opened.engine, study, doomed, checkpoints, as_json)
    finally:
        opened.engine.dispose()


def _described(doomed: DoomedStudy) -> str:
    from skdtune.analysis.trial_record import STATE_NAMES

    counts = ", ".join(f"{number} {STATE_NAMES[state]}" for state, number in doomed.counts.items())
    why = f", the final evaluation of {doomed.source}" if doomed.source else ""
    return (
        f"{doomed.name}{why}: {doomed.num_trials} trials ({counts}), {doomed.num_artifacts} "
        "artifacts (kept networks), checkpoints and logs on this machine"
    )


def _clear(
    application: Application,
    engine: Any,
    study: str,
    doomed: Sequence[DoomedStudy],
    checkpoints: str | None,
    as_json: bool,
) -> int:
    """Remove the files of what was deleted, now or before, and say what became of them."""
    from skdtune.home import artifacts_url, checkpoints_url
    from skdtune.networks.study_files import remove_files
    from skdtune.queue.deletion import deleted_studies, forget_deleted

    at = application.home
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for left in deleted_studies(engine, [study, *(one.name for one in doomed)]):
        removed = remove_files(
            left,
            artifacts=artifacts_url(at=at),
            checkpoints=checkpoints_url(checkpoints, at=at),
            logs=at.logs,
        )
        problems += removed.problems
        if not removed.problems:
            forget_deleted(engine, left)
        rows.append(
            {
                "study": left.name,
                "num_trials": left.num_trials,
                "num_artifacts": removed.num_artifacts,
                "num_checkpoint_folders": removed.num_checkpoint_folders,
                "num_log_folders": removed.num_log_folders,
                "problems": removed.problems,
            }
        )
    if as_json:
        echo_json(rows)
    else:
        for row in rows:
            counted = f"{row['num_trials']} trials, {row['num_artifacts']} artifacts"
            say(application, f"deleted {row['study']}: {counted}")
    for problem in problems:
        click.echo(f"{problem}; `skdtune delete {study}` tries again", err=True)
    return 1 if problems else 0
