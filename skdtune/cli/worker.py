"""``skdtune worker``."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from skdtune.cli.application import Application, common_options, pass_application
from skdtune.cli.weights_option import weights_option
from skdtune.cli.workers_options import checkpoints_option, require_studies, studies_options
from skdtune.cores import THREADS_VARIABLE
from skdtune.errors import InputError, StudyError

if TYPE_CHECKING:
    from skdtune.signals import StopRequest


@click.command()
@click.argument("studies", metavar="STUDY...", nargs=-1)
@studies_options
@click.option("--device", help="cpu, cuda or cuda:1.  [default: the first GPU, else the CPU]")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help=f"Threads to compute with.  [env: {THREADS_VARIABLE}; default on the CPU: as many as the "
    "network can use and others leave a core to]",
)
@click.option("--max-trials", type=click.IntRange(min=1), help="Leave after so many trials.")
@click.option("--drain", is_flag=True, help="Leave as soon as no trial waits.")
@click.option("--prepare", is_flag=True, help="Get data and kernels ready, take no trial.")
@click.option("--probe", is_flag=True, help="Say how much memory a worker needs, take no trial.")
@click.option(
    "--require-kernels",
    is_flag=True,
    envvar="SKDTUNE_REQUIRE_KERNELS",
    help="Leave rather than compute with other kernels than the study's trials.  "
    "[env: SKDTUNE_REQUIRE_KERNELS]",
)
@checkpoints_option
@weights_option
@common_options
@pass_application
def worker(
    application: Application,
    studies: tuple[str, ...],
    in_order: bool,
    serve: bool,
    device: str | None,
    threads: int | None,
    max_trials: int | None,
    drain: bool,
    prepare: bool,
    probe: bool,
    require_kernels: bool,
    checkpoints: str | None,
) -> int:
    """Take trials of STUDY from the queue and train them, one after the other.

    Of several studies, or the family of several, it takes the next trial of the one that has the
    most epochs left for each of its workers. With --serve STUDY may be left out: then it trains
    whatever the storage has.

    Ctrl-C or SIGTERM finishes the epoch in hand if its end is near, gives the trial back and
    leaves; SIGUSR1 finishes the trial first. A second signal ends the worker at once.
    """
    from skdtune.signals import StopRequest

    application.configure_logging()
    require_studies(studies, serve=serve and not (prepare or probe))
    if prepare:
        return _prepare(application, studies)
    if probe:
        from skdtune.worker.probes.memory_probe import probe_memory

        if len(studies) > 1:
            raise click.UsageError("--probe takes one study", click.get_current_context())
        need = probe_memory(
            studies[0], storage=application.url, device=device, at=application.home
        )
        sizes = {"needed_bytes": need.needed, "free_bytes": need.free}
        # For `launch` to read.
        click.echo(json.dumps({**sizes, "num_fitting": need.num_fitting}))
        return 0
    with StopRequest() as stop:
        # Torch takes a while to import; a signal must be understood before.
        finished = _run(
            studies,
            in_order=in_order,
            serve=serve,
            storage=application.url,
            device=device,
            threads=threads,
            max_trials=max_trials,
            drain=drain,
            checkpoints=checkpoints,
            require_kernels=require_kernels,
            at=application.home,
            stop=stop,
            on_hang=lambda finished: _start_again(stop, max_trials and max_trials - finished),
        )
        if application.verbosity >= 0:
            click.echo(f"{finished} trials finished by this worker", err=True)
        return stop.exit_code


def _prepare(application: Application, studies: tuple[str, ...]) -> int:
    """Get ready for all studies; what is wrong with one keeps nobody from the others."""
    from skdtune.queue.stored_study import expand_families
    from skdtune.worker.worker import prepare_data

    problems: dict[str, InputError] = {}
    meant = expand_families(studies, storage=application.url)
    for study in meant:
        try:
            prepare_data(study, storage=application.url, at=application.home)
        except InputError as error:
            problems[study] = error
    if len(problems) == len(meant):
        raise next(iter(problems.values()))
    for study, problem in problems.items():
        click.echo(f"skdtune: {study} cannot be trained here: {problem}", err=True)
    return 0


def _run(
    studies: tuple[str, ...], *, in_order: bool, serve: bool, storage: str, **settings: Any
) -> int:
    """Train one study as ever, and several with a worker that knows of all of them."""
    if len(studies) == 1 and not serve:
        from skdtune.queue.stored_study import expand_family
        from skdtune.worker.worker import run_worker

        try:
            return run_worker(studies[0], storage=storage, **settings)
        except StudyError:
            # Not asked before: who trains one study opens the storage once.
            if expand_family(studies[0], storage=storage) == [studies[0]]:
                raise
    from skdtune.worker.several_studies import run_studies_worker

    return run_studies_worker(studies, storage=storage, in_order=in_order, serve=serve, **settings)


def _start_again(stop: StopRequest, max_trials: int | None) -> NoReturn:
    """Replace this process by a new worker: a thread that hangs cannot be ended.

    It keeps the environment, and with it the token by which its engine knows it: to the engine it
    is the same process. Its earlier claims are no longer its own, since each has a number.
    """
    if stop.requested:
        os._exit(stop.exit_code)
    arguments = sys.argv[1:]
    if max_trials is not None:
        if max_trials <= 0:
            os._exit(0)
        # The last one counts.
        arguments = [*arguments, "--max-trials", str(max_trials)]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "skdtune", *arguments])
