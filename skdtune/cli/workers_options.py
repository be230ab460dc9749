"""The options that say which workers are started, by what, and where they write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from skdtune.cli.weights_option import weights_option
from skdtune.home import CHECKPOINTS_VARIABLE

Command = TypeVar("Command", bound=Callable[..., Any])

checkpoints_option = click.option(
    "--checkpoints",
    metavar="DIR|URL",
    help=f"Where checkpoints lie; share it between machines.  [env: {CHECKPOINTS_VARIABLE}; "
    "default: a folder of the home]",
)


def studies_options(command: Command) -> Command:
    """Add the options that say how workers deal with several studies."""
    options = (
        click.option(
            "--in-order",
            is_flag=True,
            help="Finish the first study first; who has nothing to do there begins the next.  "
            "[default: all of them, by what is left to do]",
        ),
        click.option(
            "--serve",
            is_flag=True,
            help="Stay when all is finished, and train studies that are created later.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def require_studies(studies: Sequence[str], *, serve: bool) -> None:
    """Refuse to train nothing.

    Raises:
        click.UsageError: If no study is named, and none is waited for.
    """
    if not studies and not serve:
        raise click.UsageError("Missing argument 'STUDY...'.", click.get_current_context())


def workers_options(command: Command) -> Command:
    """Add the options that say which workers are started, and by what."""
    options = (
        click.option(
            "--engine",
            metavar="NAME",
            default="local",
            show_default=True,
            help="What starts them; `skdtune extensions` lists those of packages.",
        ),
        click.option(
            "--gpus", metavar="all|0,1|none", help="GPUs to use.  [default: all, if any]"
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, 512),
            help="Workers in all.  [default: one per GPU, or per core without GPUs]",
        ),
        click.option(
            "--workers-per-gpu", type=click.IntRange(1, 64), default=1, show_default=True
        ),
        checkpoints_option,
        weights_option,
    )
    for option in reversed(options):
        command = option(command)
    return command
