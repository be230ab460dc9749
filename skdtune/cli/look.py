"""``skdtune status``, ``best``, ``trials`` and ``dashboard``."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from skdtune.cli.application import (
    Application,
    common_options,
    console,
    echo_json,
    pass_application,
)

if TYPE_CHECKING:
    from skdtune.results.study_results import Progress, StudyResults, TrialResult


@click.command()
@click.argument("study", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Keep showing it until Ctrl-C or the end.")
@common_options
@pass_application
def status(application: Application, study: str | None, as_json: bool, watch: bool) -> None:
    """Show trials by state, the best so far, the workers and the time left."""
    if watch:
        _watch(application, study)
        return
    found = _read_progress(application, study)
    if as_json:
        data = [progress.to_dict() for progress in found]
        # A family is a list, as all studies are.
        echo_json(data[0] if study and len(data) == 1 else data)
        return
    from skdtune.cli.live import progress_view

    for progress in found:
        console().print(progress_view(progress))
    if not found:
        click.echo("no study yet: skdtune create-study digits-drg-dsr")


def _read_progress(application: Application, study: str | None) -> list[Progress]:
    from contextlib import closing

    from skdtune.errors import SpecError, StudyError
    from skdtune.queue.storage import open_storage
    from skdtune.queue.stored_study import expand_family, load_study, study_names
    from skdtune.results.study_results import read_progress

    if study:
        names = expand_family(study, storage=application.url)
    else:
        opened = open_storage(application.url)
        names = study_names(opened)
        opened.engine.dispose()
    found = []
    for name in names:
        try:
            with closing(load_study(name, storage=application.url)) as stored:
                found.append(read_progress(stored))
        except (SpecError, StudyError) as error:
            # One that cannot be read must not hide the others.
            if study:
                raise
            click.echo(f"skdtune: {error}", err=True)
    return found


def _watch(application: Application, study: str | None) -> None:
    from rich.console import Group
    from rich.live import Live

    from skdtune.cli.live import progress_view

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            found = _read_progress(application, study)
            if not found:
                live.update("no study yet: skdtune create-study digits-drg-dsr", refresh=True)
                return
            live.update(Group(*(progress_view(progress) for progress in found)), refresh=True)
            if all(progress.finished for progress in found):
                return
            time.sleep(2)


@click.command()
@click.argument("study")
@click.option("--against", metavar="STUDY", help="Another study to show beside it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print the best configuration as YAML.")
@common_options
@pass_application
def best(
    application: Application, study: str, against: str | None, as_json: bool, as_yaml: bool
) -> None:
    """Show the best trial of STUDY beside trial 0, the published setting."""
    from skdtune.errors import StudyError
    from skdtune.results.study_results import results

    found = results(study, storage=application.url)
    other = results(against, storage=application.url) if against else None
    for shown in (found, other):
        if shown is not None:
            _require_search(shown)
    if found.best is None:
        raise StudyError(f"study {study!r} has no complete trial yet: skdtune status {study}")
    if as_json:
        echo_json(_best_data(found, other))
    elif as_yaml:
        import yaml

        config = found.spec.trial_config(found.best.params, found.best.number)
        # In a study file `seed` means the study's, from which a trial derives its own.
        click.echo(f"# trial {found.best.number} of {study}, trained with seed {config.seed}")
        plain = config.model_dump(mode="json", exclude={"seed"})
        click.echo(yaml.safe_dump(plain, sort_keys=False).rstrip())
    else:
        _print_best(found, other)


def _require_search(found: StudyResults) -> None:
    """Refuse to pick the best of a final evaluation: that would choose on the test images."""
    from skdtune.errors import StudyError

    name, evaluates = found.progress.study, found.progress.evaluates
    if evaluates is not None:
        raise StudyError(
            f"study {name!r} is the final evaluation of {evaluates}, of which none is picked: "
            f"{found.progress.result_command} shows its mean"
        )


def _best_data(found: StudyResults, other: StudyResults | None) -> dict[str, Any]:
    import dataclasses

    def plain(results: StudyResults) -> dict[str, Any]:
        return {
            "study": results.progress.study,
            "best": results.best and dataclasses.asdict(results.best),
            "default": results.default and dataclasses.asdict(results.default),
            "num_val_images": results.num_val_images,
            "epochs_trained": results.epochs_trained,
        }

    return plain(found) | ({"against": plain(other)} if other else {})


def _print_best(found: StudyResults, other: StudyResults | None) -> None:
    from rich.table import Table

    out = console()
    table = Table(title="Validation accuracy", title_justify="left")
    for column in ("study", "trial", "accuracy", "standard error", "epochs"):
        table.add_column(column, justify="left" if column in ("study", "trial") else "right")
    for results in (found, other):
        if results is not None:
            for label, trial in _rows(results):
                table.add_row(results.progress.study, label, *_cells(results, trial))
    out.print(table)
    _print_params(found)
    out.print(_caveat(found, other), soft_wrap=True)


def _rows(results: StudyResults) -> list[tuple[str, TrialResult]]:
    rows = []
    if results.best is not None:
        rows.append((f"best: trial {results.best.number}", results.best))
    if results.default is not None:
        rows.append(("published: trial 0", results.default))
    return rows


def _cells(results: StudyResults, trial: TrialResult) -> tuple[str, ...]:
    value = trial.value or 0.0
    error = results.standard_error(value)
    return (f"{value:.2%}", f"{error:.2%}" if error is not None else "-", str(trial.epochs))


def _print_params(found: StudyResults) -> None:
    from rich.table import Table

    best, default = found.best, found.default
    table = Table(title="Parameters", title_justify="left")
    table.add_column("parameter")
    table.add_column("best", justify="right")
    table.add_column("published", justify="right")
    for path in found.spec.search:
        values = [t.params.get(path, "-") if t else "-" for t in (best, default)]
        table.add_row(path, *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values))
    console().print(table)


def _caveat(found: StudyResults, other: StudyResults | None) -> str:
    """Say what a validation accuracy is worth that was picked as the best of many."""
    best = found.best
    assert best is not None
    sentences = []
    if best.number == 0:
        sentences.append("No trial beats the published setting.")
    elif found.default is not None:
        sentences.append(_compared(found, found.default, "trial 0, the published setting"))
    if other is not None and other.data_fingerprints != found.data_fingerprints:
        sentences.append(
            f"Do not compare it with {other.progress.study}: the two studies were judged on "
            "different images."
        )
    elif other is not None and other.best is not None:
        sentences.append(_compared(found, other.best, f"the best of {other.progress.study}"))
    sentences.append(
        f"The best of {found.progress.counts['complete']} complete trials on the same "
        f"{found.num_val_images or '?'} validation images is an optimistic number."
    )
    return " ".join(sentences)


def _compared(found: StudyResults, reference: TrialResult, name: str) -> str:
    """Compare the best trial with another, in points and in standard errors."""
    assert found.best is not None
    difference = (found.best.value or 0.0) - (reference.value or 0.0)
    error = found.standard_error(reference.value or 0.0)
    where = "above" if difference > 0 else "below"
    sentence = f"The best trial is {abs(difference) * 100:.2f} points {where} {name}"
    if difference == 0:
        sentence = f"The best trial equals {name}"
    # The difference of two accuracies on the same images; independent errors are the safe side.
    chance = error is not None and abs(difference) < 2 * 2**0.5 * error
    return f"{sentence}, which chance alone can explain." if chance else f"{sentence}."


@click.command()
@click.argument("study")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@common_options
@pass_application
def trials(application: Application, study: str, as_json: bool, as_csv: bool) -> None:
    """List the trials of STUDY."""
    import dataclasses

    from skdtune.results.study_results import results

    found = results(study, storage=application.url)
    if as_json:
        echo_json([dataclasses.asdict(trial) for trial in found.trials])
    elif as_csv:
        _print_csv(found)
    else:
        _print_trials(found)


_COLUMNS = ("number", "state", "value", "epochs", "seconds", "seed", "device", "failure_kind")


def _print_csv(found: StudyResults) -> None:
    import csv

    evaluation = found.spec.evaluation
    tried = [found.spec.search] if evaluation is None else evaluation.params
    paths = list(dict.fromkeys(path for params in tried for path in params))
    writer = csv.writer(sys.stdout)
    writer.writerow([*_COLUMNS, *paths])
    for trial in found.trials:
        values = [getattr(trial, column) for column in _COLUMNS]
        writer.writerow([*values, *(trial.params.get(path) for path in paths)])


def _print_trials(found: StudyResults) -> None:
    from rich.table import Table

    table = Table()
    value = "value" if found.progress.evaluates else "accuracy"
    for column in ("trial", "state", value, "epochs", "time"):
        table.add_column(column, justify="right" if column != "state" else "left", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    for trial in found.trials:
        table.add_row(*_trial_row(trial))
    console().print(table)


def _trial_row(trial: TrialResult) -> tuple[str, ...]:
    from skdtune.results.tables import format_duration

    params = ", ".join(
        f"{path.removeprefix('method.')}={value:.4g}"
        if isinstance(value, float)
        else f"{path.removeprefix('method.')}={value}"
        for path, value in trial.params.items()
    )
    state = f"{trial.state} ({trial.failure_kind})" if trial.failure_kind else trial.state
    return (
        str(trial.number),
        state,
        f"{trial.value:.4f}" if trial.value is not None else "-",
        str(trial.epochs),
        format_duration(trial.seconds) if trial.seconds is not None else "-",
        trial.failure_reason or params,
    )


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@common_options
@pass_application
def dashboard(application: Application, host: str, port: int) -> None:
    """Serve optuna-dashboard for the storage, on this machine unless --host says otherwise.

    SKDTUNE_DASHBOARD_PASSWORD, where set, is asked for before anything is shown.
    """
    from skdtune.home import artifacts_url
    from skdtune.views.dashboard.server import serve

    # A service manager ends it with SIGTERM: its ordinary end, no failure.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    serve(application.url, artifacts_url(at=application.home), host, port)
