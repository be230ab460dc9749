"""Train what is left of a study with the workers of an engine, and follow them to the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from skdtune.analysis.study_results import Progress, read_progress
from skdtune.analysis.without_result import read_no_result
from skdtune.describe.data_facts import facts_of
from skdtune.engines.engine import Engine, Job, Placement, Slot
from skdtune.engines.log_folder import own_log_folder
from skdtune.engines.named import DEFAULT_ENGINE, engine_named
from skdtune.errors import (
    DeviceError,
    InputError,
    SkdtuneError,
    StorageAwayError,
    StudyPausedError,
    in_one_line,
)
from skdtune.home import (
    CHECKPOINTS_VARIABLE,
    HOME_VARIABLE,
    STORAGE_VARIABLE,
    WEIGHTS_VARIABLE,
    Home,
    checkpoints_url,
    study_folder,
)
from skdtune.models.kernels.library import ensure_library, native_folder
from skdtune.queue.deadline import ANSWER_S, Deadline, within
from skdtune.queue.leases import lease_seconds, reap_worker
from skdtune.queue.patience import Patience
from skdtune.queue.storage import DATABASE_ERRORS
from skdtune.queue.stored_study import StoredStudy, load_study
from skdtune.queue.trial_queue import TrialQueue
from skdtune.signals import SUPERVISED_VARIABLE, StopRequest
from skdtune.worker.probes.memory_need import MemoryNeed

_POLL_S = 0.2
#: Seconds that workers have to give their trials back after a second Ctrl-C.
_LEAVE_S = 30.0


class View(Protocol):
    """What shows a study while its workers train."""

    def say(self, message: str) -> None:
        """Show a message from now on."""

    def refresh(self, *, last: bool = False) -> None:
        """Read the study and show it, if it is time to."""


@dataclass(frozen=True)
class Launched:
    """How it went."""

    exit_code: int
    stopped: bool = False
    """Somebody asked for an end before there was one."""

    was_finished: bool = False
    """There was nothing to train."""

    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Which workers are started, where their checkpoints lie, and how a person follows them."""

    storage: str
    """Storage URL."""

    at: Home
    placement: Placement
    show: Callable[[StoredStudy, Engine], AbstractContextManager[View]]
    """Draws a study while its workers train."""

    say: Callable[[str], None]
    """Tells a person something that is no part of the drawing."""

    checkpoints: str | None = None
    """Folder or fsspec URL; default that of the home."""

    engine: str = DEFAULT_ENGINE
    """Name in the catalogue of what starts them."""

    def require_possible(self) -> None:
        """Refuse workers that there is no place for.

        Raises:
            InputError: If there is no such engine, or there are not so many GPUs.
        """
        job = Job(study="", environment={}, log_dir=self.at.logs, give_back=lambda token: None)
        engine_named(self.engine)(job, self.placement).slots()

    def run(self, study: str) -> Launched:
        """Train what is left of a study, and follow the workers to the end.

        Raises:
            InputError: If the study cannot be trained here.
            StudyPausedError: If the study is paused.
            SkdtuneError: If the workers ended before the study did.
            SystemExit: If a process that looks at data or memory has said why it cannot.
        """
        environment = {
            STORAGE_VARIABLE: self.storage,
            HOME_VARIABLE: str(self.at.path),
            CHECKPOINTS_VARIABLE: checkpoints_url(self.checkpoints, at=self.at),
        }
        if weights := os.environ.get(WEIGHTS_VARIABLE):
            environment[WEIGHTS_VARIABLE] = weights
        stored = load_study(study, storage=self.storage)
        progress = read_progress(stored)
        if progress.finished:
            return Launched(self._judge(stored, progress), was_finished=True, progress=progress)
        stop = StopRequest()
        patience = Patience(must_end=lambda: stop.interrupted)
        queue = TrialQueue(stored, patience, lease_seconds())
        if not facts_of(stored.spec.data.name).is_at_hand:
            # Fetched and decoded once, where a person sees the progress, before any worker.
            command = [sys.executable, "-P", "-m", "skdtune", "worker", study, "--prepare"]
            prepared = subprocess.run(command, env={**os.environ, **environment}, check=False)
            if prepared.returncode != 0:
                raise SystemExit(prepared.returncode)
        with own_log_folder(self.at.logs / study_folder(study, stored.lineage)) as log_dir:
            job = Job(
                study=study,
                environment={**environment, SUPERVISED_VARIABLE: str(os.getpid())},
                log_dir=log_dir,
                give_back=lambda token: self._give_back(stored, token),
            )
            engine = engine_named(self.engine)(job, self.placement)
            if any(slot.device == "cpu" for slot in engine.slots()):
                self._build_kernels()
            require_memory(study, engine.slots(), environment)
            with stop:
                engine.start()
                try:
                    self._follow(engine, queue, stop)
                except KeyboardInterrupt:
                    self._give_all_back(engine)
                finally:
                    engine.kill()
            return self._outcome(engine, stored, stop)

    def _build_kernels(self) -> None:
        """Build the kernels once, before all workers wait for them and nobody sees why."""
        folder = native_folder()
        try:
            if folder is not None:
                ensure_library(folder)
        except OSError as error:
            self.say(f"the kernels cannot be built: {in_one_line(error)}")

    def _follow(self, engine: Engine, queue: TrialQueue, stop: StopRequest) -> None:
        """Look after the workers and show the study until the last worker is gone."""
        reaped_at = time.monotonic()
        with self.show(queue.stored, engine) as view:
            while engine.poll():
                if time.monotonic() - reaped_at >= queue.lease_s / 4:
                    reaped_at = time.monotonic()
                    for message in _reap(queue):
                        view.say(message)
                if stop.interrupted and not engine.stopping:
                    by_keyboard = stop.exit_code != 0
                    view.say(
                        "finishing the trials in hand; Ctrl-C again gives them back to the queue"
                        if by_keyboard
                        else "giving the trials in hand back to the queue"
                    )
                    engine.drain() if by_keyboard else engine.interrupt()
                with _brief_calls(stop):
                    view.refresh()
                time.sleep(_POLL_S)
            with _brief_calls(stop):
                view.refresh(last=True)

    def _give_all_back(self, engine: Engine) -> None:
        """Ask all workers to leave now, and wait for them; another Ctrl-C ends the wait."""
        self.say("giving the trials back to the queue; Ctrl-C again ends the workers")
        engine.interrupt()
        deadline = time.monotonic() + _LEAVE_S
        try:
            while engine.poll() and time.monotonic() < deadline:
                time.sleep(_POLL_S / 2)
        except KeyboardInterrupt:
            self.say("ending the workers")

    def _give_back(self, stored: StoredStudy, token: str) -> None:
        """Give back the trials of a worker that died, without waiting for its lease."""
        try:
            with within(Deadline(ANSWER_S)):
                lost = reap_worker(stored.engine, stored.study_id, token)
        except DATABASE_ERRORS:
            # The database is away; the lease will run out, and any worker gives the trial back.
            return
        for claim in lost:
            self.say(f"trial {claim.number} waits again: its worker {claim.worker.pid} died")

    def _outcome(self, engine: Engine, stored: StoredStudy, stop: StopRequest) -> Launched:
        """Find out how it went, and say what stopped it."""
        try:
            with _brief_calls(stop):
                progress = read_progress(stored)
                code = stop.exit_code if stop.requested else self._judge(stored, progress)
        except DATABASE_ERRORS:
            self.say("stopped; the storage does not answer, nothing is lost")
            return Launched(stop.exit_code if stop.requested else 1, stopped=True)
        if stop.requested:
            left = progress.num_trials - progress.num_finished
            self.say(f"stopped; {left} trials wait: skdtune launch {stored.study.study_name}")
            return Launched(code, stopped=True, progress=progress)
        failures = [] if progress.finished else engine.failures()
        if failures:
            first = failures[0]
            message = first.message.removeprefix("skdtune: ")
            if first.exit_code == InputError.exit_code:
                raise InputError(message)
            if first.exit_code == StudyPausedError.exit_code:
                raise StudyPausedError(message)
            raise SkdtuneError(f"{message} (log: {first.log})")
        return Launched(code, progress=progress)

    def _judge(self, stored: StoredStudy, progress: Progress) -> int:
        """Return the exit code of a study that ended: 1, with the reason, if nothing came out."""
        if progress.best_trial is not None:
            return 0
        if advice := read_no_result(stored):
            self.say(advice)
        return 1


def _brief_calls(stop: StopRequest) -> AbstractContextManager[None]:
    """Let a silent storage not keep anybody from the workers for long, least of all at the end."""
    return within(Deadline(ANSWER_S, lambda: stop.interrupted))


def _reap(queue: TrialQueue) -> list[str]:
    """Give trials back whose workers fell silent, on whatever machine."""
    try:
        numbers = queue.reap_silent("launch")
    except StorageAwayError:
        return []
    return [f"trial {number} waits again: its worker fell silent" for number in numbers]


def require_memory(study: str, slots: Sequence[Slot], environment: dict[str, str]) -> None:
    """Refuse more workers on a GPU than fit; measured on each, since GPUs may differ.

    Args:
        study: Name of the study.
        slots: The places of the workers.
        environment: Variables of the process that measures.

    Raises:
        DeviceError: If they do not fit.
        SystemExit: If the process that measures has said why it cannot.
    """
    shared = {slot.label for slot in slots if slot.label.startswith("gpu")}
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
            raise SystemExit(probed.returncode)
        sizes = json.loads(probed.stdout.splitlines()[-1])
        MemoryNeed(sizes["needed_bytes"], sizes["free_bytes"]).require(len(on_it), label)
