"""Entry point of the command line: one line for each error, and the exit codes of the contract."""

from __future__ import annotations

import sys

import click

from skdtune.cli.application import show_traceback
from skdtune.cli.main import cli
from skdtune.errors import SkdtuneError
from skdtune.signals import INTERRUPTED_EXIT_CODE


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    0 done, 1 a run failed, 2 wrong use or input, 4 the study is paused, 130 interrupted.
    """
    try:
        code = cli.main(args=arguments, prog_name="skdtune", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        _end(error.format_message() + hint, error.exit_code)
    except SkdtuneError as error:
        _end(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end("interrupted", INTERRUPTED_EXIT_CODE)
    except BrokenPipeError:
        # The reader of a pipe (head, less) left early; that is no error of ours.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        _end(f"{type(error).__name__}: {' '.join(str(error).split())[:500]} (-v shows more)", 1)


def _end(message: str, code: int) -> None:
    if show_traceback():
        import traceback

        traceback.print_exc()
    click.echo(f"skdtune: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
