"""The live table of ``launch`` and ``status --watch``, and its plain form where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import click
from rich.console import Group
from rich.live import Live

from skdtune.analysis.study_results import Progress, read_progress
from skdtune.analysis.tables import format_duration
from skdtune.cli.application import terminal
from skdtune.cli.family_view import family_line, family_view
from skdtune.cli.study_view import progress_line, progress_view
from skdtune.queue.storage import DATABASE_ERRORS

if TYPE_CHECKING:
    from skdtune.engines.engine import Engine
    from skdtune.queue.stored_study import StoredStudy

_REFRESH_S = 1.0
_PLAIN_REFRESH_S = 10.0
#: Pause before the next look, in times that a look took.
_PATIENCE = 10.0
_AWAY = "the storage does not answer; the workers are kept, trying again"


class LiveView:
    """Shows studies while their workers train; one line every ten seconds without a terminal.

    Args:
        studies: The studies; whoever follows them may add some and take some away.
        engine: The workers that were started, for their restarts.
        quiet: Show nothing.
    """

    def __init__(self, studies: Sequence[StoredStudy], engine: Engine, *, quiet: bool) -> None:
        self._studies = studies
        self._is_one = len(studies) == 1
        self._engine = engine
        self._quiet = quiet
        self._started = time.monotonic()
        self._next = 0.0
        self._message = ""
        self._last_line = ""
        # What people wrote (a description, an error) is text, however much it looks like markup.
        console = terminal(stderr=True)
        shown = console.is_terminal and not quiet
        self._live = Live(console=console, auto_refresh=False) if shown else None

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
        elif not self._quiet:
            click.echo(f"logs in {self._engine.where_logs}", err=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, message: str) -> None:
        """Show a message with the table from now on."""
        self._message = message
        if self._live is None:
            click.echo(message, err=True)

    def refresh(self, *, last: bool = False) -> None:
        """Read the study and show it, if it is time to."""
        now = time.monotonic()
        if self._quiet or (now < self._next and not last):
            return
        self._next = now + (_REFRESH_S if self._live else _PLAIN_REFRESH_S)
        try:
            shown = [read_progress(stored) for stored in self._studies]
        except DATABASE_ERRORS:
            if self._message != _AWAY:
                self.say(_AWAY)
            return
        # Many studies, or a slow storage, are asked less often: it is the workers' first.
        self._next = max(self._next, time.monotonic() + _PATIENCE * (time.monotonic() - now))
        if self._message == _AWAY:
            self._message = ""
        if self._live is not None:
            passed = format_duration(time.monotonic() - self._started)
            restarts = self._engine.num_restarts
            footer = f"{passed} passed, {self._engine.num_workers} workers"
            footer += f", {restarts} restarts" if restarts else ""
            footer += f", logs in {self._engine.where_logs}{self._starting(shown)}"
            drawn = Group(self._drawn(shown), footer, self._message)
            self._live.update(drawn, refresh=True)
        else:
            line = self._written(shown) + self._starting(shown)
            if not (last and line == self._last_line):
                click.echo(line, err=True)
            self._last_line = line

    def _drawn(self, shown: Sequence[Progress]) -> Group:
        self._is_one &= len(shown) == 1
        return progress_view(shown[0]) if self._is_one else family_view(shown)

    def _written(self, shown: Sequence[Progress]) -> str:
        self._is_one &= len(shown) == 1
        return progress_line(shown[0]) if self._is_one else family_line(shown)

    def _starting(self, shown: Sequence[Progress]) -> str:
        """Explain the seconds in which nothing happens yet."""
        if self._engine.stopping or any(progress.workers for progress in shown):
            return ""
        wait = any(
            progress.counts["waiting"] and (progress.paused is None or self._is_one)
            for progress in shown
        )
        return "; workers are starting" if wait else ""
