"""``skdtune launch``: start workers on this machine and follow them to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from skdtune.cli.application import Application, common_options, pass_application, say
from skdtune.cli.workers_options import workers_options

if TYPE_CHECKING:
    from skdtune.engines.launching import Launch


@click.command()
@click.argument("study")
@workers_options
@common_options
@pass_application
def launch(
    application: Application,
    study: str,
    engine: str,
    gpus: str | None,
    workers: int | None,
    workers_per_gpu: int,
    checkpoints: str | None,
) -> int:
    """Start workers for STUDY on this machine and follow them to the end.

    One worker per GPU, or per core without GPUs. The first Ctrl-C lets every worker finish its
    trial, the second gives the trials back to the queue, the third ends everything at once.
    STUDY may also be the family of several studies, which are trained one after the other.
    """
    from skdtune.queue.stored_study import expand_family

    workers_here = launch_of(application, engine, gpus, workers, workers_per_gpu, checkpoints)
    workers_here.require_possible()
    exit_code = 0
    for name in expand_family(study, storage=application.url):
        launched = workers_here.run(name)
        if launched.stopped:
            return launched.exit_code
        progress = launched.progress
        if launched.was_finished and progress is not None:
            result = progress.result_command if launched.exit_code == 0 else "without a result"
            click.echo(f"{name} is finished already: {result}")
        elif progress is not None:
            counts = progress.counts
            ended = ", ".join(f"{counts[s]} {s}" for s in ("complete", "pruned", "failed"))
            say(application, f"{name}: {ended}")
        exit_code = exit_code or launched.exit_code
    return exit_code


def launch_of(
    application: Application,
    engine: str,
    gpus: str | None,
    workers: int | None,
    workers_per_gpu: int,
    checkpoints: str | None,
) -> Launch:
    """Read the options of `workers_options`, and draw on the terminal."""
    from skdtune.cli.live import LiveView
    from skdtune.engines.engine import Placement
    from skdtune.engines.launching import Launch

    quiet = application.verbosity < 0
    return Launch(
        storage=application.url,
        at=application.home,
        placement=Placement(gpus=gpus, workers=workers, workers_per_gpu=workers_per_gpu),
        show=lambda stored, engine: LiveView(stored, engine, quiet=quiet),
        say=lambda message: click.echo(message, err=True),
        checkpoints=checkpoints,
        engine=engine,
    )
