"""``skdtune trials``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

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
    from skdtune.analysis.study_record import StudyRecord
    from skdtune.analysis.trial_record import TrialRecord


@click.command()
@click.argument("study")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@common_options
@pass_application
def trials(application: Application, study: str, as_json: bool, as_csv: bool) -> None:
    """List the trials of STUDY."""
    from skdtune.analysis.study_record import study_record

    shown = study_record(study, storage=application.url)
    if as_json:
        echo_json([trial.to_dict() for trial in shown.listed])
    elif as_csv:
        _print_csv(shown)
    else:
        _print_trials(shown)


_COLUMNS = ("number", "state", "value", "epochs", "seconds", "seed", "device", "failure_kind")


def _print_csv(study: StudyRecord) -> None:
    import csv

    paths = study.spec.kind.tried_paths(study.spec.search)
    writer = csv.writer(sys.stdout)
    # The last column is there where it says something.
    foreign = ["foreign"] if study.foreign else []
    writer.writerow([*_COLUMNS, *paths, *foreign])
    for trial in study.listed:
        values = [getattr(trial, column) for column in _COLUMNS]
        said = [getattr(trial, column) for column in foreign]
        writer.writerow([*values, *(trial.params.get(path) for path in paths), *said])


def _print_trials(study: StudyRecord) -> None:
    from rich.table import Table

    from skdtune.analysis.mixture import mixtures

    table = Table()
    for column in ("trial", "state", study.spec.kind.value_heading, "epochs", "time"):
        table.add_column(column, justify="right" if column != "state" else "left", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    for trial in study.listed:
        table.add_row(*_trial_row(trial))
    console().print(table)
    for sentence in mixtures(study.name, study.trials):
        console().print(sentence, soft_wrap=True)


def _trial_row(trial: TrialRecord) -> tuple[str, ...]:
    from skdtune.analysis.tables import format_duration
    from skdtune.describe.value_format import format_value

    params = ", ".join(
        f"{path.removeprefix('method.')}={value:.4g}"
        if isinstance(value, float)
        else f"{path.removeprefix('method.')}={value}"
        for path, value in trial.params.items()
    )
    mark = "foreign" if trial.foreign else trial.failure_kind
    state = f"{trial.state} ({mark})" if mark else trial.state
    return (
        str(trial.number),
        state,
        "-" if trial.value is None else format_value(trial.value, trial.value_name),
        str(trial.epochs),
        format_duration(trial.seconds) if trial.seconds is not None else "-",
        trial.foreign or trial.failure_reason or params,
    )
