"""``skdtune train``: one training, without a study or a database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skdtune.cli.application import (
    Application,
    common_options,
    echo_json_line,
    pass_application,
    say,
)
from skdtune.cli.weights_option import setting_of_weights, weights_option
from skdtune.cores import THREADS_VARIABLE
from skdtune.signals import INTERRUPTED_EXIT_CODE

if TYPE_CHECKING:
    from skdtune.describe.presets import Changes
    from skdtune.runs.plan import RunPlan
    from skdtune.runs.single_training import RunOutcome


@click.command()
@click.argument("study", metavar="[NAME|FILE]", required=False)
@click.option(
    "--from",
    "origin",
    metavar="STUDY[:TRIAL]",
    help="Train the best trial of a study, or another one of it, instead of a preset.",
)
@click.option("--name", help="Name of the run; default that of the preset or the file.")
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
    help="The same here, where nothing is searched; repeatable.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, 100_000),
    help="Length of the training; the schedule stretches.  [default: as it is set, or was]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    help="Seed of weights, order and augmentation.  [default: as it is set, or was; else 0]",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the run.  [default: runs/<name>-<hash of the settings>-seed<seed>]",
)
@weights_option
@click.option("--test", is_flag=True, help="In the end score the test images, once.")
@click.option(
    "--all-images",
    is_flag=True,
    help="Learn from the validation images too, as a final evaluation does; takes --test.",
)
@click.option("--device", help="cpu, cuda or cuda:1.  [default: the first GPU, else the CPU]")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help=f"Threads to compute with.  [env: {THREADS_VARIABLE}; default on the CPU: as many as the "
    "network can use and others leave a core to]",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print a line of JSON per epoch, then the result."
)
@common_options
@pass_application
def train(
    application: Application,
    study: str | None,
    origin: str | None,
    name: str | None,
    overrides: tuple[str, ...],
    fixed: tuple[str, ...],
    epochs: int | None,
    seed: int | None,
    folder: Path | None,
    test: bool,
    all_images: bool,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> int:
    """Train once, with the published setting of a preset, and keep all of it in one folder.

    No study, no database. The network learns from the training images but for the validation
    images, and is judged on these after each epoch. The same command again goes on where the
    training was left, exactly; of a finished one it shows the result. Ctrl-C leaves it at the
    next step.
    """
    from skdtune.cli.extra import needs_train_extra
    from skdtune.describe.presets import Changes
    from skdtune.errors import InputError
    from skdtune.signals import StopRequest

    if (study is None) == (origin is None):
        raise InputError("name what to train: a preset or a file, or --from STUDY")
    overrides += setting_of_weights()
    changes = Changes(overrides=overrides, fixed=fixed)
    length: dict[str, Any] = {"name": name, "epochs": epochs, "seed": seed}
    application.configure_logging()
    # Torch takes a while to import; a signal must be understood before.
    with StopRequest() as stop, needs_train_extra("train"):
        from skdtune.cli.live_training import watcher_for
        from skdtune.runs.plan import plan_run
        from skdtune.runs.single_training import train_once

        if origin is not None:
            plan = _plan_from(application, origin, changes, length, all_images)
        else:
            plan = plan_run(
                str(study), changes, all_images=all_images, at=application.home, **length
            )
        outcome = train_once(
            plan,
            folder=folder,
            test=test,
            device=device,
            threads=threads,
            at=application.home,
            stop=stop,
            watcher=watcher_for(as_json=as_json, quiet=application.verbosity < 0),
        )
    if as_json:
        plain = {"folder": str(outcome.folder), "finished": outcome.result is not None}
        echo_json_line(plain | dict(outcome.result or {"epochs": outcome.num_epochs}))
    else:
        _tell(application, outcome, plan.config.budget.epochs)
    return 0 if outcome.result is not None else INTERRUPTED_EXIT_CODE


def _plan_from(
    application: Application,
    origin: str,
    changes: Changes,
    length: Mapping[str, Any],
    all_images: bool,
) -> RunPlan:
    from skdtune.analysis.chosen_trial import chosen_trial
    from skdtune.runs.plan import plan_of_trial

    study, colon, number = origin.rpartition(":")
    has_number = bool(colon) and number.isdecimal()
    chosen = chosen_trial(
        study if has_number else origin,
        int(number) if has_number else None,
        storage=application.url,
    )
    return plan_of_trial(
        chosen.config,
        changes,
        study=chosen.study,
        number=chosen.number,
        spec_hash=chosen.spec_hash,
        pinned=chosen.source,
        all_images=all_images,
        **length,
    )


def _tell(application: Application, outcome: RunOutcome, planned: int) -> None:
    """Say what came out, or how to go on."""
    from skdtune.analysis.tables import format_count, format_duration
    from skdtune.describe.value_format import format_accuracy

    result = outcome.result
    if result is None:
        click.echo(
            f"stopped after epoch {outcome.num_epochs} of {planned}, which {outcome.folder} "
            "keeps; the same command goes on from there",
            err=True,
        )
        return
    if outcome.was_finished:
        say(application, f"{outcome.folder} is finished already; nothing was trained")
    for images, prefix in (("validation", "val"), ("test", "test")):
        if f"{prefix}_accuracy" in result:
            names = ("accuracy", "standard_error", "top5", "ece", "nll")
            accuracy, error, top5, ece, nll = (result[f"{prefix}_{name}"] for name in names)
            likelihood = "not finite" if nll is None else f"{nll:.4f}"
            say(
                application,
                f"{images} accuracy {format_accuracy(accuracy, error)} (standard error of "
                f"{result[f'num_{prefix}_images']:,} images); top-5 {format_accuracy(top5)}, "
                f"calibration error {format_accuracy(ece)}, NLL {likelihood}",
            )
    if "from" in result and "test_accuracy" not in result:
        say(
            application,
            f"the settings are from {result['from']['study']}, whose trials were judged by these "
            "images: the number may be optimistic",
        )
    taken = format_duration(result["train_seconds"])
    say(
        application,
        f"{format_count(result['epochs'], 'epoch')} in {taken} on {result['device']}; "
        f"{outcome.folder} has the network, its card and its curve",
    )
