"""Several studies as one: one bar, one number of epochs, one estimate of the time left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from skdtune.analysis.study_results import Progress
from skdtune.analysis.tables import format_duration
from skdtune.analysis.time_left import Pace, time_left
from skdtune.cli.application import printable
from skdtune.cli.study_view import worker_table
from skdtune.describe.value_format import format_accuracy


def family_line(studies: Sequence[Progress]) -> str:
    """Write where several studies stand together in one line."""
    counts: dict[str, int] = {}
    for progress in studies:
        for state, number in progress.counts.items():
            counts[state] = counts.get(state, 0) + number
    states = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    finished = sum(progress.finished for progress in studies)
    paces = _paces(studies)
    done = sum(pace.epochs_done for pace in paces)
    expected = done + round(sum(pace.epochs_left for pace in paces))
    of_them = f"{finished} of {len(studies)} studies finished"
    trials = f"{_num_finished(studies)}/{_num_trials(studies)} trials: {states}"
    left_s = time_left(paces)
    if finished == len(studies):
        return f"{trials}; {of_them}, {done} epochs"
    # 0 where all that is left is paused.
    left = f"; about {format_duration(left_s)} left" if left_s else ""
    paused = sum(progress.paused is not None for progress in studies)
    held_up = f", {paused} paused" if paused else ""
    return f"{trials}; {of_them}{held_up}; epoch {done} of about {expected}{left}"


def family_view(studies: Sequence[Progress]) -> Group:
    """Draw where several studies stand: together, one by one, and who trains what."""
    paces = _paces(studies)
    done = sum(pace.epochs_done for pace in paces)
    left = sum(pace.epochs_left for pace in paces)
    total = Table.grid(padding=(0, 1))
    total.add_row(
        ProgressBar(total=max(1.0, done + left), completed=done, width=24), family_line(studies)
    )
    rows = Table(box=None, pad_edge=False)
    for column in ("study", "", "trials", "best", ""):
        rows.add_column(column, justify="right" if column in ("trials", "best") else "left")
    for progress in studies:
        # The best of several seeds is no result, and must not look like one.
        hides = progress.best_value is None or progress.evaluates is not None
        rows.add_row(
            progress.study,
            ProgressBar(
                total=max(1, progress.num_trials), completed=progress.num_finished, width=12
            ),
            f"{progress.num_finished}/{progress.num_trials}",
            "" if hides else format_accuracy(progress.best_value or 0.0),
            _remark(progress),
        )
    parts: list[object] = [total, rows]
    if any(progress.workers for progress in studies):
        parts.append(
            worker_table(
                [(progress, worker) for progress in studies for worker in progress.workers],
                with_study=True,
            )
        )
    return Group(*parts)  # type: ignore[arg-type]


def _remark(progress: Progress) -> Text:
    if progress.paused is not None:
        return Text(
            f"PAUSED: {printable(progress.paused)}; skdtune resume {progress.study}", "bold"
        )
    return Text("finished" if progress.finished else "")


def _paces(studies: Sequence[Progress]) -> list[Pace]:
    """Return what each study has left to do that workers take."""
    return [
        progress.pace if progress.paused is None else replace(progress.pace, waiting=0)
        for progress in studies
        if progress.pace is not None
    ]


def _num_finished(studies: Sequence[Progress]) -> int:
    return sum(progress.num_finished for progress in studies)


def _num_trials(studies: Sequence[Progress]) -> int:
    return sum(progress.num_trials for progress in studies)
