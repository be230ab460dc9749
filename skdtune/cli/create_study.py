"""``skdtune create-study``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from skdtune.cli.application import (
    Application,
    common_options,
    console,
    echo_rows,
    json_option,
    pass_application,
    say,
)
from skdtune.cli.weights_option import setting_of_weights, weights_option

if TYPE_CHECKING:
    from skdtune.describe.spec import StudySpec


@click.command("create-study")
@click.argument("study", metavar="NAME|FILE")
@click.option("--name", help="Name of the study; default that of the preset or the file.")
@click.option("--trials", type=click.IntRange(min=1), help="Number of trials, exactly.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting by its dotted key, for example optimizer.lr=0.05; repeatable.",
)
@click.option(
    "--fix",
    "fixed",
    multiple=True,
    metavar="KEY=VALUE",
    help="The same, and do not search it; repeatable.",
)
@weights_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the study, its rungs and its cost; create nothing. (A budget in images or "
    "seconds is planned all the same, which takes the data.)",
)
@json_option
@common_options
@pass_application
def create_study(
    application: Application,
    study: str,
    name: str | None,
    trials: int | None,
    overrides: tuple[str, ...],
    fixed: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Define a study, or a family of them to compare, and queue the trials."""
    from skdtune.data.look import look_at_data
    from skdtune.describe.presets import Changes, load_changed

    overrides += setting_of_weights()
    changes = Changes(overrides=overrides, fixed=fixed)
    specs = load_changed(study, changes, name=name, num_trials=trials)
    warnings = look_at_data(specs, data_dir=application.home.data)
    _require_networks(specs)
    if any(spec.budget.is_open for spec in specs):
        specs = [_planned(application, spec, quiet=as_json) for spec in specs]
    if dry_run and as_json:
        _warn([*warnings, *changes.notes])
        echo_rows([_planned_row(spec) for spec in specs])
        return
    if dry_run:
        _warn(warnings)
        _print_plan(specs[0]) if len(specs) == 1 else _print_family(specs)
        for note in changes.notes:
            say(application, note)
        _print_time(application, specs)
        return
    from skdtune.queue.stored_study import create_studies

    created = create_studies(specs, storage=application.url)
    # Not before: what was wrong is one line.
    _warn([*warnings, *changes.notes] if as_json else warnings)
    if as_json:
        echo_rows([_row(spec) | {"created": spec.name in created} for spec in specs])
        return
    for spec in specs:
        if spec.name in created:
            say(
                application,
                f"created {spec.name}: {spec.num_trials} trials of {spec.budget.epochs} epochs, "
                f"spec {spec.digest}",
            )
        else:
            say(application, f"{spec.name} is there already with the same spec; nothing changed")
    if created:
        for note in changes.notes:
            say(application, note)
        say(application, f"train them: skdtune launch {specs[0].family or specs[0].name}")


def _print_time(application: Application, specs: list[StudySpec]) -> None:
    """Say how long it will take here, with one worker and with as many as `launch` starts."""
    from skdtune.cli.time_ahead import time_ahead
    from skdtune.engines.local_slots import plan_slots

    if application.verbosity < 0:
        return
    wanted = [(spec, spec.num_trials) for spec in specs]
    if ahead := time_ahead(application, wanted, len(plan_slots(None, None))):
        click.echo(f"Time: {ahead}.", err=True)


def _require_networks(specs: Sequence[StudySpec]) -> None:
    """Try networks of which no catalogue says all, and those with weights, where torch is."""
    from skdtune.catalogues.models import family_of, networks, usable_family
    from skdtune.describe.packages import installed_version

    for spec in specs:
        package = usable_family(family_of(spec.model.name)).package
        is_unknown = spec.model.name not in networks() and installed_version(str(package))
        has_torch = installed_version("torch") is not None
        if has_torch and (is_unknown or spec.model.weights_sha256 is not None):
            from skdtune.models.pretrained import require_network

            require_network(spec.base_config())


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _row(spec: StudySpec) -> dict[str, Any]:
    """Return what JSON says of a study, whether it is created or not."""
    return {
        "study": spec.name,
        "family": spec.family or None,
        "spec_hash": spec.digest,
        "num_trials": spec.num_trials,
        "epochs_per_trial": spec.budget.epochs,
        "max_epochs": spec.max_epochs,
    }


def _planned_row(spec: StudySpec) -> dict[str, Any]:
    from skdtune.describe.packages import packages_of

    return _row(spec) | {
        "created": False,
        "trial_0": spec.base_params(),
        "rungs": [list(rungs) for rungs in spec.effective_pruner.brackets(spec.budget.epochs)],
        "packages": packages_of(spec),
        "spec": spec.model_dump(mode="json"),
    }


def _planned(application: Application, spec: StudySpec, *, quiet: bool) -> StudySpec:
    """Turn a budget in images or seconds into epochs, which takes a look at the data."""
    from contextlib import closing

    from skdtune.describe.budget_planning import plan_budget, planned_before
    from skdtune.errors import InputError
    from skdtune.queue.stored_study import load_study

    try:
        with closing(load_study(spec.name, storage=application.url)) as stored:
            before = planned_before(spec, stored.spec)
    except InputError:
        # It is not there yet, or cannot be read.
        before = None
    # A measurement is never twice the same: what a study has stays.
    planned = before or plan_budget(spec, at=application.home)
    given = (
        f"{spec.budget.images:,} images"
        if spec.budget.images is not None
        else f"{spec.budget.seconds:g} device seconds"
    )
    if not quiet:
        say(application, f"{spec.name}: {given} are {planned.budget.epochs} epochs")
    return planned


def _print_family(specs: list[StudySpec]) -> None:
    from rich.table import Table

    table = Table(title=f"Studies of {specs[0].family}", title_justify="left")
    for column in ("study", "trials", "epochs", "images per epoch", "parameters", "spec"):
        table.add_column(column, justify="left" if column in ("study", "spec") else "right")
    for spec in specs:
        factor = spec.method.images_per_anchor
        cells = (spec.name, spec.num_trials, spec.budget.epochs, f"{factor}x", len(spec.search))
        table.add_row(*map(str, cells), spec.digest)
    if specs[0].budget.seconds is not None:
        cost = f"about {specs[0].budget.seconds:g} device seconds, as measured here"
    else:
        plain = sorted({spec.budget.epochs * spec.method.images_per_anchor for spec in specs})
        epochs = f"{plain[0]}" if len(plain) == 1 else f"{plain[0]} to {plain[-1]}"
        cost = f"as many images as {epochs} plain epochs have"
    out = console()
    out.print(table)
    out.print(
        f"Cost: {sum(spec.num_trials for spec in specs)} trials, each of {cost}. "
        "`create-study` with the name of one method shows its search space. Nothing was "
        "created."
    )


def _print_plan(spec: StudySpec) -> None:
    import yaml

    from skdtune.describe.packages import packages_of

    out = console()
    content = spec.model_dump(mode="json", exclude={"search"})
    out.print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip(), markup=False)
    out.print()
    out.print(_space_table(spec))
    out.print(_rung_table(spec))
    for name, needed in packages_of(spec).items():
        out.print(f"Needs {name} {needed['version']}: {', '.join(needed['offers'])}", markup=False)
    out.print(
        f"Cost: {spec.num_trials} trials of {spec.budget.epochs} epochs, at most "
        f"{spec.max_epochs} epochs. Spec {spec.digest}. Nothing was created."
    )


def _space_table(spec: StudySpec) -> object:
    from rich.table import Table

    table = Table(title="Search space", title_justify="left")
    for column in ("parameter", "range", "trial 0", "only when", "why"):
        table.add_column(column, overflow="fold")
    base = spec.base_params()
    for path, param in spec.search.items():
        when = ", ".join(f"{key}: {_condition(value)}" for key, value in param.when.items())
        default = str(base.get(path, "not active"))
        table.add_row(path, param.describe(), default, when, param.reason)
    return table


def _condition(condition: object) -> str:
    size = getattr(condition, "min_size", None)
    return f"at least {size} of them" if size else " | ".join(map(str, condition))  # type: ignore[call-overload]


def _rung_table(spec: StudySpec) -> object:
    from rich.table import Table

    table = Table(title=f"Rungs of pruner {spec.pruner.name}", title_justify="left")
    table.add_column("bracket")
    table.add_column("judged after epoch", overflow="fold")
    for index, rungs in enumerate(spec.effective_pruner.brackets(spec.budget.epochs)):
        judged = ", ".join(map(str, rungs)) or "never: every trial runs to its end"
        if len(rungs) > 4 and rungs == tuple(range(rungs[0], rungs[-1] + 1)):
            judged = f"{rungs[0]}, and every epoch up to {rungs[-1]}"
        table.add_row(str(index), judged)
    return table
