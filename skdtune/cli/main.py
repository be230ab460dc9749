"""The command line: its root group and its commands.

Command modules import what they need inside of the commands, so that ``--help`` stays fast.
"""

from __future__ import annotations

from importlib import import_module

import click

from skdtune import __version__
from skdtune.cli.application import common_options


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99})
@click.version_option(__version__, prog_name="skdtune", message="%(prog)s %(version)s")
@common_options
def cli() -> None:
    """Hyperparameter search for self-knowledge distillation.

    \b
    skdtune train digits-drg-dsr           train once, with the published setting
    skdtune create-study digits-drg-dsr    define a study from a preset
    skdtune launch digits-drg-dsr          train its trials on all GPUs, or on the CPU
    skdtune best digits-drg-dsr            the best trial beside the published setting
    skdtune evaluate digits-drg-dsr        the honest number: retrained, tested once per seed
    skdtune dashboard                      look at everything in the browser

    To compare methods: create-study digits-compare, then launch, evaluate, compare and report
    with that name.
    """  # noqa: D301 (Click reads the backspace)


#: In the order of the help: each is a file of this folder, and the function of its name in there.
_COMMANDS = (
    "studies",
    "data",
    "train",
    "create_study",
    "worker",
    "launch",
    "budget",
    "enqueue",
    "pause",
    "resume",
    "rename",
    "delete",
    "status",
    "best",
    "trials",
    "explain",
    "evaluate",
    "compare",
    "export",
    "report",
    "dashboard",
    "models",
    "doctor",
    "extensions",
    "storage",
)
for _command in _COMMANDS:
    cli.add_command(getattr(import_module(f"skdtune.cli.{_command}"), _command))
