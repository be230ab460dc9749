"""``skdtune budget``: more trials of a study, or fewer, while workers train."""

from __future__ import annotations

import click

from skdtune.cli.application import (
    Application,
    common_options,
    echo_rows,
    json_option,
    pass_application,
    say,
)
from skdtune.cli.named_studies import names_for, opened_for_writing


@click.command()
@click.argument("study")
@click.argument("num_trials", type=click.IntRange(min=1))
@json_option
@common_options
@pass_application
def budget(application: Application, study: str, num_trials: int, as_json: bool) -> None:
    """Give STUDY exactly NUM_TRIALS trials, while it runs or after it.

    More trials are queued behind the others; with fewer, those that nobody has begun are taken
    away. Trials that have begun stay.
    """
    from skdtune.queue.trial_budget import queued_by_hand, set_budget

    rows = []
    for name in names_for(application, study):
        with opened_for_writing(application, name) as stored:
            queued = queued_by_hand(stored.engine, stored.study_id, num_trials)
            before = set_budget(stored.engine, stored.study_id, num_trials)
            if queued:
                numbers = ", ".join(map(str, queued))
                click.echo(f"queued by hand, and taken away: trial {numbers} of {name}", err=True)
            rows.append({"study": name, "num_trials": num_trials, "num_trials_before": before})
            if not as_json:
                say(application, f"{name} has {num_trials} trials, {before} before")
    if as_json:
        echo_rows(rows)
