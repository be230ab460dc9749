"""``skdtune best``: the best trial beside the published setting."""

from __future__ import annotations

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
    from skdtune.results.study_results import StudyResults, TrialResult


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
            shown.spec.kind.require_picking(shown.progress.study)
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
