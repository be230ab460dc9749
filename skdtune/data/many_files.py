"""Do something with many files at once, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from skdtune.cores import num_cores

_MAX_THREADS = 8
_FILES_PER_TASK = 64
_MANY_FILES = 10_000


def with_each_file(what: str, folder: Path, number: int, work: Callable[[int], None]) -> None:
    """Do some work with each of many files; the bar goes to the standard error stream.

    Args:
        what: What is done, as a participle: ``decoding``.
        folder: Where the files lie.
        number: How many there are.
        work: Called with the number of each file, from 0, in any order and from several threads;
            its first error is raised, and the files that are left are left.
    """
    # Where everything is known already, nothing of this is needed.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    def work_on_some(start: int) -> int:
        rows = range(start, min(start + _FILES_PER_TASK, number))
        for row in rows:
            work(row)
        return len(rows)

    console = Console(stderr=True)
    if not console.is_interactive and number >= _MANY_FILES:
        console.print(f"{what} {number} images of {folder}, once", soft_wrap=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_interactive)
    # Threads: reading, decompressing and hashing let other threads run.
    pool = ThreadPoolExecutor(min(_MAX_THREADS, num_cores()))
    try:
        with bar:
            task = bar.add_task(f"{what} {folder}", total=number)
            for done in pool.map(work_on_some, range(0, number, _FILES_PER_TASK)):
                bar.advance(task, done)
    finally:
        pool.shutdown(cancel_futures=True)
