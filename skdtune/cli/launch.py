"""``skdtune launch``: start workers on this machine and follow them to the end."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from skdtune.cli.application import Application, common_options, pass_application, say
from skdtune.cli.workers_options import workers_options
from skdtune.home import CHECKPOINTS_VARIABLE, HOME_VARIABLE, STORAGE_VARIABLE, checkpoints_url

if TYPE_CHECKING:
    from skdtune.analysis.study_results import Progress
    from skdtune.engines.local import LocalSupervisor, Slot
    from skdtune.queue.stored_study import StoredStudy
    from skdtune.signals import StopRequest


@click.command()
@click.argument("study")
@workers_options
@common_options
@pass_application
def launch(
    application: Application,
    study: str,
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

    settings = Launch(gpus, workers, workers_per_gpu, checkpoints)
    settings.require_possible()
    exit_code = 0
    for name in expand_family(study, storage=application.url):
        launched = launch_study(application, name, settings)
        if launched.stopped:
            return launched.exit_code
        progress = launched.progress
        if launched.was_finished and progress is not None:
            click.echo(f"{name} is finished already: {progress.result_command}")
        elif progress is not None:
            counts = progress.counts
            ended = ", ".join(f"{counts[s]} {s}" for s in ("complete", "pruned", "failed"))
            say(application, f"{name}: {ended}")
        exit_code = exit_code or launched.exit_code
    return exit_code


@dataclass(frozen=True)
class Launch:
    """Which workers are started on this machine, and where their checkpoints lie."""

    gpus: str | None = None
    workers: int | None = None
    workers_per_gpu: int = 1
    checkpoints: str | None = None

    def require_possible(self) -> list[Slot]:
        """Return the places of the workers.

        Raises:
            InputError: If there are not so many GPUs.
        """
        from skdtune.engines.local import plan_slots

        return plan_slots(self.gpus, self.workers, self.workers_per_gpu)


@dataclass(frozen=True)
class Launched:
    """How it went."""

    exit_code: int
    stopped: bool = False
    """Somebody asked for an end before there was one."""

    was_finished: bool = False
    """There was nothing to train."""

    progress: Progress | None = None


def launch_study(application: Application, study: str, settings: Launch) -> Launched:
    """Train what is left of a study with workers on this machine, and follow them to the end.

    Raises:
        InputError: If the study cannot be trained here.
        StudyPausedError: If the study is paused.
        SkdtuneError: If the workers ended before the study did.
    """
    from skdtune.analysis.study_results import read_progress
    from skdtune.engines.local import LocalSupervisor
    from skdtune.queue.stored_study import load_study
    from skdtune.signals import SUPERVISED_VARIABLE, StopRequest

    slots = settings.require_possible()
    stored = load_study(study, storage=application.url)
    progress = read_progress(stored)
    if progress.finished:
        return Launched(0, was_finished=True, progress=progress)
    environment = {
        STORAGE_VARIABLE: application.url,
        HOME_VARIABLE: str(application.home.path),
        CHECKPOINTS_VARIABLE: checkpoints_url(settings.checkpoints, at=application.home),
    }
    if stored.spec.data.name != "digits":
        _prepare(study, environment)
    _require_memory(study, slots, environment)
    supervisor = LocalSupervisor(
        study=study,
        slots=slots,
        environment={**environment, SUPERVISED_VARIABLE: str(os.getpid())},
        log_dir=application.home.logs / study,
        give_back=lambda pid: _give_back(stored, pid),
    )
    with StopRequest() as stop:
        supervisor.start()
        try:
            _follow(supervisor, stored, stop, quiet=application.verbosity < 0)
        except KeyboardInterrupt:
            _give_all_back(supervisor)
        finally:
            supervisor.kill()
    return _outcome(supervisor, stored, stop)


def _require_memory(study: str, slots: list[Slot], environment: dict[str, str]) -> None:
    """Refuse more workers on a GPU than fit; measured on each, since GPUs may differ.

    Raises:
        DeviceError: If they do not fit.
    """
    import subprocess

    from skdtune.errors import DeviceError
    from skdtune.worker.probes.memory_need import MemoryNeed

    shared = [label for label in {s.label for s in slots} if label.startswith("gpu")]
    for label in sorted(shared):
        on_it = [slot for slot in slots if slot.label == label]
        if len(on_it) < 2:
            continue
        command = [sys.executable, "-P", "-m", "skdtune", "-q", "worker", study, "--probe"]
        probed = subprocess.run(
            [*command, "--device", on_it[0].device],
            env={**os.environ, **environment, **on_it[0].environment},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if probed.returncode < 0:
            raise DeviceError(f"the probe of {label} died: does one worker fit into the memory?")
        if probed.returncode != 0:
            # It has said why.
            raise SystemExit(probed.returncode)
        found = json.loads(probed.stdout.splitlines()[-1])
        need = MemoryNeed(found["needed_bytes"], found["free_bytes"])
        need.require(len(on_it), label)


def _prepare(study: str, environment: dict[str, str]) -> None:
    """Fetch and decode the data once, where a person sees the progress, before any worker."""
    import subprocess
    import sys

    command = [sys.executable, "-P", "-m", "skdtune", "-q", "worker", study, "--prepare"]
    prepared = subprocess.run(command, env={**os.environ, **environment}, check=False)
    if prepared.returncode != 0:
        # It has said why.
        raise SystemExit(prepared.returncode)


def _follow(
    supervisor: LocalSupervisor, stored: StoredStudy, stop: StopRequest, *, quiet: bool
) -> None:
    """Look after the workers and show the study until the last worker is gone."""
    from skdtune.cli.live import LiveView

    reaper = _Reaper(stored)
    with LiveView(stored, supervisor, quiet=quiet) as view:
        while supervisor.poll():
            for message in reaper.look():
                view.say(message)
            if stop.interrupted and not supervisor.stopping:
                by_keyboard = stop.exit_code != 0
                view.say(
                    "finishing the trials in hand; Ctrl-C again gives them back to the queue"
                    if by_keyboard
                    else "giving the trials in hand back to the queue"
                )
                supervisor.drain() if by_keyboard else supervisor.interrupt()
            view.refresh()
            time.sleep(0.2)
        view.refresh(last=True)


class _Reaper:
    """Gives trials back whose workers fell silent, on whatever machine, every few seconds."""

    def __init__(self, stored: StoredStudy) -> None:
        from skdtune.queue.leases import lease_seconds
        from skdtune.queue.trial_queue import TrialQueue

        self._queue = TrialQueue(stored, lease_s=lease_seconds())
        self._looked_at = time.monotonic()

    def look(self) -> list[str]:
        from skdtune.errors import StorageAwayError

        if time.monotonic() - self._looked_at < self._queue.lease_s / 4:
            return []
        self._looked_at = time.monotonic()
        try:
            numbers = self._queue.reap_silent("launch")
        except StorageAwayError:
            return []
        return [f"trial {number} waits again: its worker fell silent" for number in numbers]


def _give_all_back(supervisor: LocalSupervisor) -> None:
    """Ask all workers to leave now, and wait for them; another Ctrl-C ends the wait."""
    click.echo("giving the trials back to the queue; Ctrl-C again ends the workers", err=True)
    supervisor.interrupt()
    deadline = time.monotonic() + 30
    try:
        while supervisor.poll() and time.monotonic() < deadline:
            time.sleep(0.1)
    except KeyboardInterrupt:
        click.echo("ending the workers", err=True)


def _give_back(stored: StoredStudy, pid: int) -> None:
    from skdtune.engines.local import this_host
    from skdtune.queue.leases import reap_worker
    from skdtune.queue.storage import DATABASE_ERRORS

    try:
        numbers = reap_worker(stored.engine, stored.study_id, this_host(), pid)
    except DATABASE_ERRORS:
        # The database is away; the lease will run out, and any worker gives the trial back.
        return
    for number in numbers:
        click.echo(f"trial {number} waits again: its worker {pid} died", err=True)


def _outcome(
    supervisor: LocalSupervisor,
    stored: StoredStudy,
    stop: StopRequest,
) -> Launched:
    """Find out how it went, and say what stopped it."""
    from skdtune.analysis.study_results import read_progress
    from skdtune.engines.local import last_line
    from skdtune.errors import InputError, SkdtuneError, StudyPausedError
    from skdtune.queue.storage import DATABASE_ERRORS

    try:
        progress = read_progress(stored)
    except DATABASE_ERRORS:
        click.echo("stopped; the storage does not answer, nothing is lost", err=True)
        return Launched(stop.exit_code if stop.requested else 1, stopped=True)
    name = stored.study.study_name
    if stop.requested:
        left = progress.num_trials - progress.num_finished
        click.echo(f"stopped; {left} trials wait: skdtune launch {name}", err=True)
        return Launched(stop.exit_code, stopped=True, progress=progress)
    wrong = [worker for worker in supervisor.workers if worker.exit_code not in (0, 130, None)]
    if wrong and not progress.finished:
        message = last_line(wrong[0].log).removeprefix("skdtune: ")
        if wrong[0].exit_code == 2:
            raise InputError(message)
        if wrong[0].exit_code == StudyPausedError.exit_code:
            raise StudyPausedError(message)
        raise SkdtuneError(f"{message} (log: {wrong[0].log})")
    return Launched(0 if progress.counts["complete"] else 1, progress=progress)
