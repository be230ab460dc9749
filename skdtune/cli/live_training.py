"""What a person, or a script, sees of one training: a live display, plain lines, or JSON lines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skdtune.analysis.tables import format_duration
from skdtune.cli.application import echo_json_line, terminal
from skdtune.describe.epoch_report import EpochReport
from skdtune.describe.value_format import format_accuracy
from skdtune.runs.watcher import RunStart, Watcher

_REFRESH_S = 0.25
_BARS = "▁▂▃▄▅▆▇█"
_SPARKLINE = 40


class PlainTraining(Watcher):
    """A line for each epoch, where nobody watches a terminal.

    Args:
        quiet: Say only what the training outlives.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._start: RunStart | None = None
        self._epochs: list[EpochReport] = []

    def begins(self, start: RunStart, so_far: Sequence[EpochReport]) -> None:
        """Say what is trained."""
        self._start, self._epochs = start, list(so_far)
        self._tell(describe_start(start))

    def epoch(self, report: EpochReport) -> None:
        """Say what the epoch came to."""
        assert self._start is not None
        self._epochs.append(report)
        self._tell(epoch_line(report, self._start, self._epochs))

    def say(self, message: str) -> None:
        """Say it."""
        click.echo(message, err=True)

    def _tell(self, line: str) -> None:
        if not self._quiet:
            click.echo(line, err=True)


class JsonTraining(PlainTraining):
    """A line of JSON for each epoch, for a script; messages go to stderr."""

    def _tell(self, line: str) -> None:
        pass

    def epoch(self, report: EpochReport) -> None:
        """Print the epoch, counted from 1."""
        assert self._start is not None
        row: dict[str, Any] = {
            "epoch": report.epoch + 1,
            "epochs": self._start.epochs,
            "val_accuracy": report.val_accuracy,
            "val_loss": report.val_loss,
            "losses": report.losses,
            "lr": report.lr,
            "seconds": report.seconds,
            "images": report.images,
        }
        echo_json_line(row)


class LiveTraining(Watcher):
    """One picture of the training that is drawn anew as it goes on.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._start: RunStart | None = None
        self._epochs: list[EpochReport] = []
        self._messages: list[str] = []
        self._drawn_at = 0.0

    def begins(self, start: RunStart, so_far: Sequence[EpochReport]) -> None:
        """Draw it for the first time."""
        self._start, self._epochs = start, list(so_far)
        self._live.start()
        self._draw(0.0)

    def step(self, progress: float) -> None:
        """Draw it anew, a few times a second."""
        if time.monotonic() - self._drawn_at >= _REFRESH_S:
            self._draw(progress)

    def epoch(self, report: EpochReport) -> None:
        """Draw it anew."""
        self._epochs.append(report)
        self._draw(0.0)

    def say(self, message: str) -> None:
        """Show it below the picture, or where there is none yet as a line."""
        if self._start is None:
            click.echo(message, err=True)
        self._messages.append(message)

    def ends(self) -> None:
        """Leave the last picture on the screen."""
        if self._start is not None:
            self._draw(0.0)
            self._live.stop()

    def _draw(self, progress: float) -> None:
        assert self._start is not None
        self._drawn_at = time.monotonic()
        self._live.update(
            training_view(self._start, self._epochs, progress, self._messages), refresh=True
        )


def watcher_for(*, as_json: bool, quiet: bool) -> Watcher:
    """Return who shows a training here."""
    if as_json:
        return JsonTraining()
    console = terminal(stderr=True)
    if console.is_terminal and not quiet:
        return LiveTraining(console)
    return PlainTraining(quiet=quiet)


def training_view(
    start: RunStart, epochs: Sequence[EpochReport], progress: float, messages: Sequence[str]
) -> Group:
    """Draw where a training stands.

    Args:
        start: What is trained.
        epochs: Its finished epochs.
        progress: Share of the epoch in hand that is done.
        messages: What a person should know.
    """
    bar = Table.grid(padding=(0, 1))
    done = f"{len(epochs)}/{start.epochs} epochs{_speed(epochs)}{_left(start, epochs, progress)}"
    bar.add_row(ProgressBar(total=start.epochs, completed=len(epochs) + progress, width=24), done)
    parts: list[Any] = [
        Text.assemble((start.name, "bold"), f"  {_images(start)}; {start.computes}"),
        bar,
    ]
    if epochs:
        last = epochs[-1]
        table = Table(box=None, pad_edge=False)
        cells = [(f"loss {name}", f"{value:.4f}") for name, value in last.losses.items()]
        if last.val_accuracy is not None:
            cells.append(("validation accuracy", format_accuracy(last.val_accuracy)))
            cells.append(("", sparkline([r.val_accuracy or 0.0 for r in epochs])))
        cells.append(("learning rate", f"{last.lr:.4g}"))
        for heading, _ in cells:
            table.add_column(heading, justify="right")
        table.add_row(*(cell for _, cell in cells))
        parts.append(table)
    parts += [Text(message) for message in messages]
    return Group(*parts)


def epoch_line(report: EpochReport, start: RunStart, epochs: Sequence[EpochReport]) -> str:
    """Write what an epoch came to in one line.

    Args:
        report: The epoch.
        start: What is trained.
        epochs: All epochs so far, this one among them.
    """
    width = len(str(start.epochs))
    losses = ", ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
    accuracy = (
        ""
        if report.val_accuracy is None
        else (f"  validation {format_accuracy(report.val_accuracy)}")
    )
    return (
        f"epoch {report.epoch + 1:{width}}/{start.epochs}  loss {losses}{accuracy}"
        f"  lr {report.lr:.4g}{_speed([report])}{_left(start, epochs, 0.0)}"
    )


def describe_start(start: RunStart) -> str:
    """Say what is trained, on what and how, in one line."""
    return f"{start.name}, seed {start.seed}: {_images(start)}; {start.computes}; {start.folder}"


def sparkline(values: Sequence[float]) -> str:
    """Draw a curve in one line of text: its lowest value is the lowest bar, its highest the full.

    Args:
        values: At least one; of many, as many as fit in a line are drawn, evenly chosen.
    """
    if len(values) > _SPARKLINE:
        step = (len(values) - 1) / (_SPARKLINE - 1)
        values = [values[round(index * step)] for index in range(_SPARKLINE)]
    low, high = min(values), max(values)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in values)


def _images(start: RunStart) -> str:
    judged = "none to be judged on" if start.num_val is None else f"{start.num_val:,} to judge by"
    return f"{start.num_train:,} images to learn from, {judged}"


def _speed(epochs: Sequence[EpochReport]) -> str:
    """Tell how fast it goes; the last epoch takes longer, because it is scored in full."""
    speeds = [report.images / report.seconds for report in epochs if report.seconds]
    return f"  {statistics.median(speeds):,.0f} images/s" if speeds else ""


def _left(start: RunStart, epochs: Sequence[EpochReport], progress: float) -> str:
    left = start.epochs - len(epochs) - progress
    if not epochs or left <= 0:
        return ""
    usual_s = statistics.median(report.seconds for report in epochs)
    return f"  {format_duration(usual_s * left)} left"
