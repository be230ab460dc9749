"""The live table of ``launch`` and ``status --watch``, and its plain form where nobody watches."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

import click
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skdtune.analysis.study_results import Progress, read_progress
from skdtune.analysis.tables import format_duration
from skdtune.cli.application import printable, terminal
from skdtune.describe.value_format import format_accuracy
from skdtune.queue.storage import DATABASE_ERRORS

if TYPE_CHECKING:
    from skdtune.engines.engine import Engine
    from skdtune.queue.stored_study import StoredStudy

_REFRESH_S = 1.0
_PLAIN_REFRESH_S = 10.0
_AWAY = "the storage does not answer; the workers are kept, trying again"


class LiveView:
    """Shows a study while its workers train; one line every ten seconds without a terminal.

    Args:
        stored: The study.
        engine: The workers that were started, for their restarts.
        quiet: Show nothing.
    """

    def __init__(self, stored: StoredStudy, engine: Engine, *, quiet: bool) -> None:
        self._stored = stored
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
            progress = read_progress(self._stored)
        except DATABASE_ERRORS:
            if self._message != _AWAY:
                self.say(_AWAY)
            return
        if self._message == _AWAY:
            self._message = ""
        if self._live is not None:
            passed = format_duration(time.monotonic() - self._started)
            restarts = self._engine.num_restarts
            footer = f"{passed} passed, {self._engine.num_workers} workers"
            footer += f", {restarts} restarts" if restarts else ""
            footer += f", logs in {self._engine.where_logs}{self._starting(progress)}"
            drawn = Group(progress_view(progress), footer, self._message)
            self._live.update(drawn, refresh=True)
        else:
            line = progress_line(progress) + self._starting(progress)
            if not (last and line == self._last_line):
                click.echo(line, err=True)
            self._last_line = line

    def _starting(self, progress: Progress) -> str:
        """Explain the seconds in which nothing happens yet."""
        idle = not progress.workers and not progress.finished and not self._engine.stopping
        return "; workers are starting" if idle and progress.counts["waiting"] else ""


def progress_view(progress: Progress) -> Group:
    """Draw where a study stands: trials by state, best so far, time left, its workers."""
    # In a grid the bar ends its line also where there is no terminal.
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=progress.num_trials, completed=progress.num_finished, width=24),
        progress_line(progress),
    )
    title = Text.assemble((progress.study, "bold"), "  ", printable(progress.description))
    parts: list[object] = [title, bar]
    if progress.paused is not None:
        parts.append(
            Text(f"PAUSED: {printable(progress.paused)}; skdtune resume {progress.study}", "bold")
        )
    parts += [Text(printable(sentence), "bold") for sentence in progress.mixtures]
    if progress.workers:
        parts.append(_worker_table(progress))
    return Group(*parts)  # type: ignore[arg-type]


def _worker_table(progress: Progress) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("host", "pid", "device", "trial", "epoch", "since", "last sign of life"):
        table.add_column(column, justify="right" if column in ("pid", "trial") else "left")
    for worker in progress.workers:
        attempt = f" (attempt {worker.attempt})" if worker.attempt > 1 else ""
        table.add_row(
            worker.host,
            str(worker.pid),
            worker.device,
            f"{worker.trial}{attempt}",
            # The one in hand.
            f"{min(worker.epochs + 1, progress.epochs_per_trial)}/{progress.epochs_per_trial}",
            format_duration(worker.seconds),
            f"{worker.silent_s:.0f} s ago",
        )
    return table


def _foreign(progress: Progress) -> str:
    """Say how many of the trials skdtune's workers did not make."""
    number, running = sum(progress.foreign.values()), progress.foreign.get("running", 0)
    if not number:
        return ""
    back = f" ({running} may be abandoned: skdtune storage reap --foreign)" if running else ""
    return f", {number} of them foreign{back}"


def progress_line(progress: Progress) -> str:
    """Write where a study stands in one line."""
    counts = ", ".join(f"{number} {state}" for state, number in progress.counts.items() if number)
    best = (
        f"best {format_accuracy(progress.best_value)} (trial {progress.best_trial})"
        if progress.best_value is not None
        else f"no trial complete: {progress.result_command} says why"
        if progress.finished
        else "no trial complete yet"
    )
    if progress.evaluates is not None:
        # The best of several seeds is no result, and must not look like one.
        best = f"{progress.result_command} shows the result"
    counts += _foreign(progress)
    left = "" if progress.eta_s is None else f"; about {format_duration(progress.eta_s)} left"
    if progress.finished:
        left = "; finished"
    elif progress.paused is not None:
        left = "; paused"
    return f"{progress.num_finished}/{progress.num_trials} trials: {counts}; {best}{left}"
