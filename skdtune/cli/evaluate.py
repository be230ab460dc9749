"""``skdtune evaluate``: retrain the winners of a study and test them once per seed."""

from __future__ import annotations

from typing import Any

import click

from skdtune.cli.application import Application, common_options, pass_application, say
from skdtune.cli.table_formats import chosen_format, format_options, print_table
from skdtune.cli.workers_options import workers_options


@click.command()
@click.argument("study")
@click.option(
    "--top",
    type=click.IntRange(1, 100),
    help="Best trials to evaluate.  [default: 1, or as many as before]",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    help="Trainings of each.  [default: 5, or as many as before]",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, 100_000),
    help="Epochs of each training; of a family plain ones.  [default: those of the search, or as "
    "before]",
)
@click.option("--name", help="Name of the evaluation.  [default: STUDY.test]")
@click.option("--now", is_flag=True, help="Evaluate the best so far of an unfinished study.")
@click.option("--queue-only", is_flag=True, help="Queue the trainings, start no worker.")
@workers_options
@format_options
@common_options
@pass_application
def evaluate(
    application: Application,
    /,
    study: str,
    top: int | None,
    seeds: int | None,
    epochs: int | None,
    name: str | None,
    now: bool,
    queue_only: bool,
    engine: str,
    gpus: str | None,
    workers: int | None,
    workers_per_gpu: int,
    checkpoints: str | None,
    **formats: bool,
) -> int:
    """Retrain the best of STUDY on all training images and test it once per seed.

    The trainings are trials of a study of their own, STUDY.test: they can be killed and resumed,
    and other machines can help with `skdtune worker STUDY.test`. What is there is not trained
    again. STUDY may also be the family of several studies.
    """
    from skdtune.cli.launch import launch_of
    from skdtune.errors import InputError
    from skdtune.queue.final_evaluation import queue_evaluation, require_evaluable
    from skdtune.queue.stored_study import expand_family

    chosen = chosen_format(formats)
    studies = expand_family(study, storage=application.url)
    if name is not None and len(studies) > 1:
        raise InputError(f"--name {name}: {study} stands for {len(studies)} studies")
    workers_here = launch_of(application, engine, gpus, workers, workers_per_gpu, checkpoints)
    if not queue_only:
        workers_here.require_possible()
    for one in studies:
        require_evaluable(one, now=now, storage=application.url)
    lengths = _lengths(application, studies, epochs)
    names = [
        queue_evaluation(
            one,
            top=top,
            num_seeds=seeds,
            epochs=lengths[one],
            name=name,
            now=now,
            storage=application.url,
        )
        for one in studies
    ]
    if not queue_only:
        launched = workers_here.run(names)
        if launched.stopped:
            return launched.exit_code
        if launched.problem is not None:
            raise launched.problem
    return _print(application, names, chosen, queue_only)


def _lengths(
    application: Application, studies: list[str], epochs: int | None
) -> dict[str, int | None]:
    """Return the epochs of each study's trainings: those of a family see as many images."""
    from contextlib import closing

    from skdtune.describe.presets import epochs_of_equal_images
    from skdtune.queue.stored_study import load_study

    lengths: dict[str, int | None] = dict.fromkeys(studies, epochs)
    if epochs is not None and len(studies) > 1:
        for one in studies:
            with closing(load_study(one, storage=application.url)) as stored:
                lengths[one] = epochs_of_equal_images(stored.spec, epochs)
    return lengths


def _print(
    application: Application, names: list[str], chosen: str | None, queue_only: bool
) -> int:
    """Print the table, and return the exit code: 1 if a seed failed."""
    from skdtune.analysis.evaluation_results import evaluation_results
    from skdtune.analysis.evaluation_table import evaluation_data, evaluation_table

    evaluations = [evaluation_results(name, storage=application.url) for name in names]
    if queue_only and chosen is None:
        for results in evaluations:
            left = len(results.missing) - len(results.failed)
            train = f"train them: skdtune launch {results.name}"
            say(application, f"{results.name}: {left} trainings wait; {train}")
    else:
        data: Any = [evaluation_data(results) for results in evaluations]
        print_table(evaluation_table(evaluations), chosen, data[0] if len(data) == 1 else data)
    return 1 if any(results.failed for results in evaluations) else 0
