"""The options that say which workers are started, by what, and where they write."""

from __future__ import annotations

from collections.abc import Callable
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
