"""How the commands that print a table of results print it: for people, for papers, for scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from skdtune.cli.application import console, echo_json
from skdtune.errors import InputError

if TYPE_CHECKING:
    from skdtune.analysis.tables import Table

Command = TypeVar("Command", bound=Callable[..., Any])

_FORMATS = {"json": "JSON", "markdown": "Markdown", "latex": "LaTeX", "csv": "CSV"}


def format_options(command: Command) -> Command:
    """Add ``--json``, ``--markdown``, ``--latex`` and ``--csv``, one of which may be given."""
    for name, title in reversed(_FORMATS.items()):
        option = click.option(f"--{name}", f"as_{name}", is_flag=True, help=f"Print {title}.")
        command = option(command)
    return command


def chosen_format(flags: dict[str, bool]) -> str | None:
    """Return the one format that was asked for, None for a table on the terminal.

    Args:
        flags: The options of :func:`format_options` as the command was given them.

    Raises:
        InputError: If there are several.
    """
    chosen = [name for name in _FORMATS if flags[f"as_{name}"]]
    if len(chosen) > 1:
        raise InputError(
            f"received {' and '.join(f'--{name}' for name in chosen)}: at most one of "
            f"{', '.join(f'--{name}' for name in _FORMATS)} can be printed"
        )
    return chosen[0] if chosen else None


def print_table(table: Table, chosen: str | None, data: Any) -> None:
    """Print a table in a format.

    Args:
        table: What people and papers get.
        chosen: ``json``, ``markdown``, ``latex`` or ``csv``; None for the terminal.
        data: What ``json`` prints.
    """
    from skdtune.analysis.tables import to_csv, to_latex, to_markdown

    renderers = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}
    if chosen == "json":
        echo_json(data)
        return
    if chosen is not None:
        click.echo(renderers[chosen](table), nl=False)
        return
    from rich.table import Table as Drawn

    drawn = Drawn(title=table.title, title_justify="left")
    for column in table.columns:
        drawn.add_column(column.header, justify=column.align, overflow="fold")
    for row in table.rows:
        drawn.add_row(*row)
    out = console()
    out.print(drawn)
    for note in table.notes:
        out.print(note, soft_wrap=True)
