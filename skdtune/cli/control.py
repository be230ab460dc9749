"""``skdtune budget``, ``pause`` and ``resume``: steer a study while workers train."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from skdtune.cli.application import Application, common_options, pass_application, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skdtune.queue.stored_study import StoredStudy


@click.command()
@click.argument("study")
@click.argument("num_trials", type=click.IntRange(min=1))
@common_options
@pass_application
def budget(application: Application, study: str, num_trials: int) -> None:
    """Give STUDY exactly NUM_TRIALS trials, while it runs or after it.

    More trials are queued behind the others; with fewer, those that nobody has begun are taken
    away. Trials that have begun stay.
    """
    from skdtune.queue.trial_budget import set_budget

    for name in _names(application, study):
        with _opened(application, name) as stored:
            before = set_budget(stored.engine, stored.study_id, num_trials)
            say(application, f"{name} has {num_trials} trials, {before} before")


@click.command()
@click.argument("study")
@click.option("--reason", default="paused by hand", show_default=True, help="What status shows.")
@common_options
@pass_application
def pause(application: Application, study: str, reason: str) -> None:
    """Let nobody take trials of STUDY; those in hand are finished."""
    from skdtune.queue import pausing

    for name in _names(application, study):
        with _opened(application, name) as stored:
            pausing.pause(stored.engine, stored.study_id, reason)
            say(application, f"{name} is paused; `skdtune resume {name}` lets it go on")


@click.command()
@click.argument("study")
@common_options
@pass_application
def resume(application: Application, study: str) -> None:
    """Let workers take trials of STUDY again, after it was paused."""
    from skdtune.queue import pausing

    for name in _names(application, study):
        with _opened(application, name) as stored:
            was_paused = pausing.resume(stored.engine, stored.study_id)
            text = f"{name} goes on; start workers with `skdtune launch {name}`"
            say(application, text if was_paused else f"{name} was not paused")


def _names(application: Application, study: str) -> list[str]:
    """Return the study of that name, or all studies of the family of that name."""
    from skdtune.queue.stored_study import expand_family

    return expand_family(study, storage=application.url)


@contextlib.contextmanager
def _opened(application: Application, study: str) -> Iterator[StoredStudy]:
    from skdtune.queue.storage import require_writable
    from skdtune.queue.stored_study import load_study

    with contextlib.closing(load_study(study, storage=application.url)) as stored:
        require_writable(stored.storage)
        yield stored
