"""``skdtune launch``: start workers on this machine and follow them to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skdtune.cli.application import Application, common_options, pass_application, say
from skdtune.cli.workers_options import require_studies, studies_options, workers_options

if TYPE_CHECKING:
    from skdtune.engines.launching import Launch


@click.command()
@click.argument("studies", metavar="STUDY...", nargs=-1)
@studies_options
@workers_options
@common_options
@pass_application
def launch(
    application: Application,
    studies: tuple[str, ...],
    in_order: bool,
    serve: bool,
    engine: str,
    gpus: str | None,
    workers: int | None,
    workers_per_gpu: int,
    checkpoints: str | None,
) -> int:
    """Start workers for STUDY on this machine and follow them to the end.

    One worker per GPU, or per core without GPUs. The first Ctrl-C lets every worker finish its
    trial, the second gives the trials back to the queue, the third ends everything at once.

    STUDY may also be the family of several studies. All workers serve all of them: the next trial
    is of the study that has the most epochs left for each of its workers, or with --in-order of
    the first that has one.
    """
    require_studies(studies, serve=serve)
    workers_here = launch_of(
        application,
        engine,
        gpus,
        workers,
        workers_per_gpu,
        checkpoints,
        in_order=in_order,
        serve=serve,
    )
    workers_here.require_possible()
    launched = workers_here.run(studies)
    if launched.stopped:
        return launched.exit_code
    for progress in launched.progress:
        if progress.study in launched.finished_before:
            result = progress.result_command if progress.best_trial is not None else ""
            result = result or "without a result"
            click.echo(f"{progress.study} is finished already: {result}")
        elif progress.finished or launched.problem is None:
            counts = progress.counts
            ended = ", ".join(f"{counts[s]} {s}" for s in ("complete", "pruned", "failed"))
            say(application, f"{progress.study}: {ended}")
    if launched.problem is not None:
        raise launched.problem
    return launched.exit_code


def launch_of(
    application: Application,
    engine: str,
    gpus: str | None,
    workers: int | None,
    workers_per_gpu: int,
    checkpoints: str | None,
    *,
    in_order: bool = False,
    serve: bool = False,
) -> Launch:
    """Read the options of `workers_options`, and draw on the terminal."""
    from skdtune.cli.live import LiveView
    from skdtune.cli.time_ahead import time_ahead
    from skdtune.engines.engine import Placement
    from skdtune.engines.launching import Launch

    quiet = application.verbosity < 0
    return Launch(
        storage=application.url,
        at=application.home,
        placement=Placement(gpus=gpus, workers=workers, workers_per_gpu=workers_per_gpu),
        show=lambda studies, engine: LiveView(studies, engine, quiet=quiet),
        say=lambda message: click.echo(message, err=True),
        checkpoints=checkpoints,
        engine=engine,
        foresee=lambda left, workers: "" if quiet else time_ahead(application, left, workers),
        in_order=in_order,
        serve=serve,
    )
