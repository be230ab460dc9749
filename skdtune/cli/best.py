"""``skdtune best``: the best trial beside the published setting."""

from __future__ import annotations

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
    from skdtune.analysis.study_record import StudyRecord
    from skdtune.analysis.trial_record import TrialRecord


@click.command()
@click.argument("study")
@click.option("--against", metavar="STUDY", help="Another study to show beside it.")
@json_option
@click.option("--yaml", "as_yaml", is_flag=True, help="Print the best configuration as YAML.")
@common_options
@pass_application
def best(
    application: Application, study: str, against: str | None, as_json: bool, as_yaml: bool
) -> None:
    """Show the best trial of STUDY beside trial 0, the published setting."""
    from skdtune.analysis.study_record import study_record
    from skdtune.analysis.without_result import describe_no_result, is_without_result
    from skdtune.errors import StudyError

    shown = study_record(study, storage=application.url)
    other = study_record(against, storage=application.url) if against else None
    for one in (shown, other):
        if one is not None:
            one.spec.kind.require_picking(one.name)
    if shown.best is None:
        if is_without_result(shown):
            raise StudyError(describe_no_result(shown))
        raise StudyError(f"study {study!r} has no complete trial yet: skdtune status {study}")
    if as_json:
        echo_json(_plain(shown) | ({"against": _plain(other)} if other else {}))
    elif as_yaml:
        import yaml

        config = shown.spec.trial_config(shown.best.params, shown.best.number)
        # In a study file `seed` means the study's, from which a trial derives its own.
        click.echo(f"# trial {shown.best.number} of {study}, trained with seed {config.seed}")
        plain = config.model_dump(mode="json", exclude={"seed"})
        click.echo(yaml.safe_dump(plain, sort_keys=False).rstrip())
    else:
        _print_best(shown, shown.best, other)


def _plain(study: StudyRecord) -> dict[str, Any]:
    from skdtune.analysis.mixture import mixtures

    mixed = mixtures(study.name, study.trials)
    return {
        "study": study.name,
        "best": study.best and study.best.to_dict(),
        "default": study.published and study.published.to_dict(),
        "num_val_images": study.num_images,
        "epochs_trained": study.epochs_trained,
        **({"mixtures": list(mixed)} if mixed else {}),
        **({"foreign": [trial.number for trial in study.foreign]} if study.foreign else {}),
    }


def _print_best(shown: StudyRecord, best: TrialRecord, other: StudyRecord | None) -> None:
    from rich.table import Table

    from skdtune.describe.value_format import format_accuracy

    out = console()
    accuracies = Table(title="Validation accuracy", title_justify="left")
    for column in ("study", "trial", "accuracy", "standard error", "epochs"):
        accuracies.add_column(column, justify="left" if column in ("study", "trial") else "right")
    for study in (shown, other):
        if study is None:
            continue
        rows = (("best: trial {}", study.best), ("published: trial {}", study.published))
        for label, trial in rows:
            if trial is not None:
                value, error = trial.value or 0.0, study.standard_error(trial.value)
                deviation = format_accuracy(error) if error is not None else "-"
                cells = (format_accuracy(value), deviation, str(trial.epochs))
                accuracies.add_row(study.name, label.format(trial.number), *cells)
    out.print(accuracies)
    parameters = Table(title="Parameters", title_justify="left")
    parameters.add_column("parameter")
    parameters.add_column("best", justify="right")
    parameters.add_column("published", justify="right")
    for path in shown.spec.search:
        values = [t.params.get(path, "-") if t else "-" for t in (best, shown.published)]
        texts = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)
        parameters.add_row(path, *texts)
    out.print(parameters)
    out.print(_caveat(shown, best, other), soft_wrap=True)
    for study in (shown, other):
        if study is not None and study.foreign:
            numbers = ", ".join(str(trial.number) for trial in study.foreign)
            out.print(
                f"Foreign trials of {study.name} count nowhere here: {numbers}; skdtune trials "
                f"{study.name} says why.",
                soft_wrap=True,
            )


def _caveat(shown: StudyRecord, best: TrialRecord, other: StudyRecord | None) -> str:
    """Say what a validation accuracy is worth that was picked as the best of many."""
    from skdtune.analysis.mixture import mixtures
    from skdtune.analysis.verdict import PUBLISHED, compared, optimism

    value, num_images = best.value or 0.0, shown.num_images
    sentences = list(mixtures(shown.name, shown.trials))
    if other is not None:
        sentences += mixtures(other.name, other.trials)
    if best.number == 0:
        sentences.append("No trial beats the published setting.")
    elif shown.published is not None:
        sentences.append(compared(value, shown.published.value or 0.0, PUBLISHED, num_images))
    if other is not None and other.data_fingerprints != shown.data_fingerprints:
        sentences.append(
            f"Do not compare it with {other.name}: the two studies were judged on different "
            "images."
        )
    elif other is not None and other.best is not None:
        name = f"the best of {other.name}"
        sentences.append(compared(value, other.best.value or 0.0, name, num_images))
    sentences.append(optimism(shown.counts["complete"], str(num_images or "?")))
    return " ".join(sentences)
