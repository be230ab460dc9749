"""``skdtune explain``: the story of one trial."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from skdtune.cli.application import (
    Application,
    common_options,
    console,
    echo_json,
    json_option,
    pass_application,
)

if TYPE_CHECKING:
    from rich.table import Table

    from skdtune.analysis.study_results import TrialStory
    from skdtune.queue.events import Event


@click.command()
@click.argument("study")
@click.argument("trial", type=click.IntRange(min=0))
@json_option
@common_options
@pass_application
def explain(application: Application, study: str, trial: int, as_json: bool) -> None:
    """Tell what happened to one TRIAL of STUDY: claims, interruptions, resumes and its end."""
    from skdtune.analysis.study_results import explain as tell

    story = tell(study, trial, storage=application.url)
    if as_json:
        echo_json(_plain(story))
        return
    out = console()
    out.print(_summary(study, story), soft_wrap=True)
    out.print(_table(story))
    for sentence in story.mixtures:
        out.print(sentence, soft_wrap=True)
    last = story.events[-1] if story.events else None
    if last is not None and "\n" in last.detail:
        out.print(last.detail, soft_wrap=True)


def _plain(story: TrialStory) -> dict[str, Any]:
    import dataclasses

    plain = dataclasses.asdict(story)
    if not story.mixtures:
        del plain["mixtures"]
    if story.trial.foreign:
        plain["trial"]["foreign"] = story.trial.foreign
    for event in plain["events"]:
        event["at"] = datetime.fromtimestamp(event["at"], UTC).isoformat(timespec="seconds")
    return plain


def _summary(study: str, story: TrialStory) -> str:
    from skdtune.describe.value_format import format_value

    trial = story.trial
    attempts = max((event.attempt for event in story.events), default=0)
    value = ""
    if trial.value is not None:
        value = f", {trial.value_name} {format_value(trial.value, trial.value_name)}"
    if trial.foreign:
        return (
            f"Trial {trial.number} of {study} is {trial.state}{value}. It is foreign, and counts "
            f"nowhere: {trial.foreign}."
        )
    if not story.events:
        return f"Trial {trial.number} of {study} is {trial.state}: nobody has taken it yet."
    return (
        f"Trial {trial.number} of {study} is {trial.state} after {trial.epochs} epochs{value}: "
        f"{_count(attempts, 'attempt')} by {_count(story.num_workers, 'worker')}, "
        f"{_count(story.epochs_repeated, 'finished epoch')} trained again."
    )


def _table(story: TrialStory) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("when", "attempt", "what", "epochs", "worker"):
        justify: Any = "right" if column in ("attempt", "epochs") else "left"
        table.add_column(column, justify=justify, no_wrap=column != "worker")
    table.add_column("", overflow="fold")
    for event in story.events:
        table.add_row(*_row(event))
    return table


def _row(event: Event) -> tuple[str, ...]:
    when = datetime.fromtimestamp(event.at).astimezone()
    return (
        f"{when:%Y-%m-%d %H:%M:%S}",
        str(event.attempt),
        event.kind,
        "" if event.kind == "claimed" else str(event.epochs),
        event.worker,
        event.detail.partition("\n")[0],
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
