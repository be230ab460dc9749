"""Where one study stands: drawn for a terminal, or written in a line."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skdtune.analysis.study_results import Progress, WorkerStatus
from skdtune.analysis.tables import format_duration
from skdtune.cli.application import printable
from skdtune.describe.value_format import format_accuracy


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
        parts.append(worker_table([(progress, worker) for worker in progress.workers]))
    return Group(*parts)  # type: ignore[arg-type]


def worker_table(
    workers: Sequence[tuple[Progress, WorkerStatus]], *, with_study: bool = False
) -> Table:
    """Draw who trains what.

    Args:
        workers: Each with the study that it trains a trial of.
        with_study: Say which study that is.
    """
    table = Table(box=None, pad_edge=False)
    which = ("study",) if with_study else ()
    for column in (
        "host",
        "pid",
        "device",
        *which,
        "trial",
        "epoch",
        "since",
        "last sign of life",
    ):
        table.add_column(column, justify="right" if column in ("pid", "trial") else "left")
    for progress, worker in workers:
        attempt = f" (attempt {worker.attempt})" if worker.attempt > 1 else ""
        table.add_row(
            worker.host,
            str(worker.pid),
            worker.device,
            *((progress.study,) if with_study else ()),
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
    left = "" if progress.left_s is None else f"; about {format_duration(progress.left_s)} left"
    if progress.finished:
        left = "; finished"
    elif progress.paused is not None:
        left = "; paused"
    return f"{progress.num_finished}/{progress.num_trials} trials: {counts}; {best}{left}"
