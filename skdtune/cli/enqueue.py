"""``skdtune enqueue``: one more trial, with parameters of a person's choice."""

from __future__ import annotations

import click

from skdtune.cli.application import (
    Application,
    common_options,
    echo_json,
    json_option,
    pass_application,
    say,
)
from skdtune.cli.named_studies import opened_for_writing


@click.command()
@click.argument("study")
@click.argument("params", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--like",
    type=click.IntRange(min=0),
    metavar="TRIAL",
    help="Start from the parameters of this trial.  [default: what is not named is sampled]",
)
@click.option(
    "--again", is_flag=True, help="Also if a trial has the same parameters; its seed is another."
)
@json_option
@common_options
@pass_application
def enqueue(
    application: Application,
    study: str,
    params: tuple[str, ...],
    like: int | None,
    again: bool,
    as_json: bool,
) -> None:
    """Queue one more trial of STUDY with parameters of your choice, for example optimizer.lr=0.05.

    STUDY has one trial more afterwards; it waits behind all others, and is never pruned. Workers
    may train meanwhile.
    """
    from dataclasses import asdict

    from skdtune.describe.fixed_parameters import written
    from skdtune.queue.queued_trial import queue_trial

    with opened_for_writing(application, study) as stored:
        queued = queue_trial(stored, params, like=like, again=again)
    if as_json:
        echo_json(asdict(queued))
        return
    named = ", ".join(f"{path}={written(value)}" for path, value in queued.params.items())
    say(application, f"trial {queued.trial} of {study} waits with {named}")
    if queued.sampled:
        say(application, f"sampled when a worker takes it: {', '.join(queued.sampled)}")
    say(
        application,
        f"{study} has {queued.num_trials} trials, {queued.trial} before; train it: skdtune "
        f"launch {study}",
    )
