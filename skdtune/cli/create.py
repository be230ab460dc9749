"""``skdtune studies`` and ``skdtune create-study``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skdtune.cli.application import (
    Application,
    common_options,
    console,
    echo_json,
    pass_application,
    say,
)

if TYPE_CHECKING:
    from skdtune.spec import StudySpec


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@common_options
def studies(as_json: bool) -> None:
    """List the presets, one line each."""
    from skdtune.presets import list_presets

    presets = list_presets()
    if as_json:
        echo_json([{"name": p.name, "description": p.description} for p in presets])
        return
    width = max(len(preset.name) for preset in presets)
    for preset in presets:
        click.echo(f"{preset.name:<{width}}  {preset.description}")


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
@click.option("--dry-run", is_flag=True, help="Print the study, its rungs and its cost; no more.")
@common_options
@pass_application
def create_study(
    application: Application,
    study: str,
    name: str | None,
    trials: int | None,
    overrides: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Define a study from a preset or a YAML file and queue its trials."""
    from skdtune.presets import load_spec

    spec = load_spec(study, overrides=overrides, name=name, num_trials=trials)
    if dry_run:
        _print_plan(spec)
        return
    from skdtune.search.study import create_study as create

    if create(spec, storage=application.url):
        say(
            application,
            f"created {spec.name}: {spec.num_trials} trials of {spec.budget.epochs} epochs, "
            f"spec {spec.digest}\ntrain them: skdtune launch {spec.name}",
        )
    else:
        say(application, f"{spec.name} is there already with the same spec; nothing changed")


def _print_plan(spec: StudySpec) -> None:
    import yaml

    out = console()
    content = spec.model_dump(mode="json", exclude={"search"})
    out.print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).rstrip(), markup=False)
    out.print()
    out.print(_space_table(spec))
    out.print(_rung_table(spec))
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
        table.add_row(str(index), _shortened(rungs) or "never: every trial runs to its end")
    return table


def _shortened(rungs: tuple[int, ...]) -> str:
    if len(rungs) > 4 and rungs == tuple(range(rungs[0], rungs[-1] + 1)):
        return f"{rungs[0]}, and every epoch up to {rungs[-1]}"
    return ", ".join(map(str, rungs))
