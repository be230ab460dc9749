"""What all commands share: the options that can stand anywhere, and how output is written."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from skdtune.describe.value_format import without_nan
from skdtune.home import HOME_VARIABLE, STORAGE_VARIABLE, Home, home, storage_url

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass
class Application:
    """The global options of one call."""

    storage: str | None = None
    home_path: str | None = None
    verbosity: int = 0

    @property
    def home(self) -> Home:
        """Folders of this installation."""
        return home(self.home_path)

    @property
    def url(self) -> str:
        """URL of the storage."""
        return storage_url(self.storage, at=self.home)

    def configure_logging(self) -> None:
        """Write the package's log to stderr, more of it with -v."""
        level = {-1: logging.ERROR, 0: logging.INFO}.get(self.verbosity, logging.DEBUG)
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("skdtune").setLevel(level)


pass_application = click.make_pass_decorator(Application, ensure=True)

_verbose = False


def show_traceback() -> bool:
    """Tell whether an error should come with its traceback."""
    return _verbose


def common_options(command: Command) -> Command:
    """Add the options that may stand before or after the name of a command."""
    for option in (_quiet_option, _verbose_option, _home_option, _storage_option):
        command = option(command)
    return command


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        global _verbose
        if not value:
            return
        application = context.ensure_object(Application)
        if name == "quiet":
            application.verbosity = -1
        elif name == "verbose":
            application.verbosity = int(value)
            _verbose = True
        else:
            setattr(application, name, value)
            if name == "home_path":
                # Everything below this call, worker processes too, shares the same home.
                os.environ[HOME_VARIABLE] = str(home(value).path)

    return callback


_storage_option = click.option(
    "--storage",
    metavar="URL",
    expose_value=False,
    callback=_store("storage"),
    help=f"Storage URL.  [env: {STORAGE_VARIABLE}; default: an SQLite file in the home]",
)
_home_option = click.option(
    "--home",
    metavar="DIR",
    expose_value=False,
    callback=_store("home_path"),
    help=f"Folder of data, cache, logs and the default storage.  [env: {HOME_VARIABLE}]",
)
_verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    callback=_store("verbose"),
    help="Say more; errors come with their traceback.",
)
_quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_store("quiet"),
    help="Say only what went wrong.",
)


def say(application: Application, message: str) -> None:
    """Print what a person wants to know and a script does not need; nothing with ``-q``."""
    if application.verbosity >= 0:
        click.echo(message)


def echo_json(value: Any) -> None:
    """Print plain data as JSON, which knows no NaN: one in a row must not spoil the others."""
    click.echo(json.dumps(without_nan(value), indent=2, ensure_ascii=False, allow_nan=False))


def echo_json_line(value: Any) -> None:
    """Print plain data as one line of JSON, for a script that reads as they come."""
    click.echo(json.dumps(without_nan(value), ensure_ascii=False, allow_nan=False))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def echo_rows(rows: Sequence[Any]) -> None:
    """Print one study's row as an object, those of several (a family) as a list."""
    echo_json(rows[0] if len(rows) == 1 else list(rows))


def printable(text: str) -> str:
    """Replace control characters, which could steer a terminal, but for ends of lines."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def terminal(*, stderr: bool = False) -> Console:
    """Return a terminal that shows what people or databases wrote as text, and as nothing else."""
    from rich.console import Console
    from rich.text import Text

    class Terminal(Console):
        def render_str(self, text: str, **settings: Any) -> Text:
            return super().render_str(printable(text), **settings)

    # A description or an error may look like markup.
    return Terminal(stderr=stderr, highlight=False, markup=False, emoji=False)


def console() -> Console:
    """Return a terminal for tables; wide enough in a pipe that no column is cut."""
    out = terminal()
    if not out.is_terminal:
        out.width = 160
    return out
