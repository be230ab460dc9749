"""Train what is left of some studies with the workers of an engine, and follow them to the end.

One set of workers serves all of them: nobody waits for the end of a study to begin another.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from skdtune.analysis.study_results import Progress, read_progress
from skdtune.analysis.without_result import read_no_result
from skdtune.describe.data_facts import facts_of
from skdtune.engines.engine import Engine, FailedWorker, Job, Placement, Slot
from skdtune.engines.followed_studies import FollowedStudies, names_of
from skdtune.engines.log_folder import own_log_folder
from skdtune.engines.named import DEFAULT_ENGINE, engine_named
from skdtune.errors import (
    DeviceError,
    InputError,
    SkdtuneError,
    StudyError,
    StudyPausedError,
    in_one_line,
)
from skdtune.home import (
    CHECKPOINTS_VARIABLE,
    HOME_VARIABLE,
    STORAGE_VARIABLE,
    STUDIES_FILE,
    WEIGHTS_VARIABLE,
    Home,
    checkpoints_url,
    shared_folder,
    study_folder,
)
from skdtune.models.kernels.library import ensure_library, native_folder
from skdtune.queue.deadline import ANSWER_S, Deadline, within
from skdtune.queue.leases import lease_seconds, reap_worker
from skdtune.queue.patience import Patience
from skdtune.queue.storage import DATABASE_ERRORS, open_storage
from skdtune.queue.stored_study import StoredStudy, load_from, study_names
from skdtune.queue.trial_queue import TrialQueue
from skdtune.signals import SUPERVISED_VARIABLE, StopRequest
from skdtune.worker.probes.memory_need import MemoryNeed

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

    from skdtune.describe.spec import StudySpec

_POLL_S = 0.2
#: Seconds that workers have to give their trials back after a second Ctrl-C.
_LEAVE_S = 30.0


class View(Protocol):
    """What shows studies while their workers train."""

    def say(self, message: str) -> None:
        """Show a message from now on."""

    def refresh(self, *, last: bool = False) -> None:
        """Read the studies and show them, if it is time to."""


@dataclass(frozen=True)
class Launched:
    """How it went."""

    exit_code: int
    stopped: bool = False
    """Somebody asked for an end before there was one."""

    progress: tuple[Progress, ...] = ()
    """Where each study stands now."""

    finished_before: frozenset[str] = frozenset()
    """Studies that there was nothing to train of."""

    problem: SkdtuneError | None = None
    """What kept the workers from some of several studies, while they trained the others."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Which workers are started, where their checkpoints lie, and how a person follows them."""

    storage: str
    """Storage URL."""

    at: Home
    placement: Placement
    show: Callable[[Sequence[StoredStudy], Engine], AbstractContextManager[View]]
    """Draws studies while their workers train; with `serve` they become more, or less."""

    say: Callable[[str], None]
    """Tells a person something that is no part of the drawing."""

    checkpoints: str | None = None
    """Folder or fsspec URL; default that of the home."""

    engine: str = DEFAULT_ENGINE
    """Name in the catalogue of what starts them."""

    foresee: Callable[[Sequence[tuple[StudySpec, int]], int], str] = lambda left, workers: ""
    """Says how long trials of some studies will take with so many workers; empty if unknown."""

    in_order: bool = False
    """Take trials of the first study that has one."""

    serve: bool = False
    """Stay when all is finished, for studies that are created later."""

    def require_possible(self) -> None:
        """Refuse workers that there is no place for.

        Raises:
            InputError: If there is no such engine, or there are not so many GPUs.
        """
        job = Job(study="", environment={}, log_dir=self.at.logs, give_back=lambda token: None)
        engine_named(self.engine)(job, self.placement).slots()

    def run(self, names: Sequence[str]) -> Launched:
        """Train what is left of some studies, and follow the workers to the end.

        Args:
            names: Names of studies or of families; with `serve` none for all of the storage.

        Raises:
            InputError: If the one study, or all of several, cannot be trained here.
            StudyPausedError: If the one study is paused.
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
        opened = open_storage(self.storage)
        studies = self._open(opened, names)
        if not studies:
            raise StudyError("there is no study to train yet: `skdtune create-study` makes one")
        progress = [read_progress(stored) for stored in studies]
        finished = frozenset(one.study for one in progress if one.finished)
        left = [stored for stored in studies if stored.study.study_name not in finished]
        if not left and not self.serve:
            codes = [self._judge(*both) for both in zip(studies, progress, strict=True)]
            return Launched(max(codes), progress=tuple(progress), finished_before=finished)
        stop = StopRequest()
        patience = Patience(must_end=lambda: stop.interrupted)
        queue = TrialQueue(studies[0], patience, lease_seconds())
        followed = FollowedStudies(queue, studies, names if self.serve else None)
        self._prepare(left, environment)
        with own_log_folder(self.at.logs / self._log_folder(studies)) as log_dir:
            # Of one that stays nobody knows yet which ones it will have served.
            if len(studies) > 1 and not self.serve:
                tokens = "".join(f"{stored.lineage}\n" for stored in studies)
                (log_dir / STUDIES_FILE).write_text(tokens)
            served = names if self.serve else [stored.study.study_name for stored in left]
            first, *more = served or [""]
            job = Job(
                study=first,
                more=tuple(more),
                options=self._options(),
                environment={**environment, SUPERVISED_VARIABLE: str(os.getpid())},
                log_dir=log_dir,
                give_back=lambda token: self._give_back(followed, token),
            )
            engine = engine_named(self.engine)(job, self.placement)
            if any(slot.device == "cpu" for slot in engine.slots()):
                self._build_kernels()
            for stored in left:
                # What is wrong with one of several studies was said, and the workers leave it.
                with contextlib.suppress(*((SystemExit,) if len(left) > 1 else ())):
                    require_memory(stored.study.study_name, engine.slots(), environment)
            if ahead := self._time_ahead(progress, left, len(engine.slots())):
                self.say(f"what is left takes {ahead}")
            with stop:
                engine.start()
                try:
                    self._follow(engine, followed, stop)
                except KeyboardInterrupt:
                    self._give_all_back(engine)
                finally:
                    engine.kill()
            launched = self._outcome(engine, followed, stop, names)
            return replace(launched, finished_before=finished)

    def _open(self, opened: RDBStorage, names: Sequence[str]) -> list[StoredStudy]:
        """Open the studies that are meant; of several, one that nobody can read hinders none."""
        meant, existing = names_of(opened, names), study_names(opened)
        studies: list[StoredStudy] = []
        for name in meant:
            try:
                studies.append(load_from(opened, name))
            except InputError as error:
                if len(meant) == 1 or name not in existing:
                    raise
                self.say(f"{name} cannot be trained here: {error}")
        return studies

    def _log_folder(self, studies: Sequence[StoredStudy]) -> str:
        """Name the folder of the logs: of one study its own, of several one of their family."""
        names = [stored.study.study_name for stored in studies]
        if len(studies) == 1 and not self.serve:
            return study_folder(names[0], studies[0].lineage)
        families = {stored.spec.family for stored in studies}
        return shared_folder((families.pop() if len(families) == 1 else "") or names[0])

    def _options(self) -> tuple[str, ...]:
        chosen = {"--in-order": self.in_order, "--serve": self.serve}
        return tuple(option for option, is_chosen in chosen.items() if is_chosen)

    def _prepare(self, studies: Sequence[StoredStudy], environment: dict[str, str]) -> None:
        """Have data fetched and decoded once, where a person sees it, before any worker."""
        if all(facts_of(stored.spec.data.name).is_at_hand for stored in studies):
            return
        names = [stored.study.study_name for stored in studies]
        command = [sys.executable, "-P", "-m", "skdtune", "worker", *names, "--prepare"]
        prepared = subprocess.run(command, env={**os.environ, **environment}, check=False)
        if prepared.returncode != 0:
            raise SystemExit(prepared.returncode)

    def _time_ahead(
        self, progress: Sequence[Progress], left: Sequence[StoredStudy], num_workers: int
    ) -> str:
        waiting = {one.study: one.num_trials - one.num_finished for one in progress}
        studies = [(stored.spec, waiting[stored.study.study_name]) for stored in left]
        return self.foresee(studies, num_workers)

    def _build_kernels(self) -> None:
        """Build the kernels once, before all workers wait for them and nobody sees why."""
        folder = native_folder()
        try:
            if folder is not None:
                ensure_library(folder)
        except OSError as error:
            self.say(f"the kernels cannot be built: {in_one_line(error)}")

    def _follow(self, engine: Engine, followed: FollowedStudies, stop: StopRequest) -> None:
        """Look after the workers and show the studies until the last worker is gone."""
        reaped_at = time.monotonic()
        with self.show(followed.studies, engine) as view:
            while engine.poll():
                if time.monotonic() - reaped_at >= followed.lease_s / 4:
                    reaped_at = time.monotonic()
                    for message in followed.reap():
                        view.say(message)
                with _brief_calls(stop):
                    followed.look_again()
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

    def _give_back(self, followed: FollowedStudies, token: str) -> None:
        """Give back the trials of a worker that died, without waiting for its lease."""
        for stored in followed.studies:
            try:
                with within(Deadline(ANSWER_S)):
                    lost = reap_worker(stored.engine, stored.study_id, token)
            except DATABASE_ERRORS:
                # The database is away; the lease will run out, and any worker gives it back.
                return
            for claim in lost:
                pid = claim.worker.pid
                label = followed.label(stored, claim.number)
                self.say(f"{label} waits again: its worker {pid} died")

    def _outcome(
        self, engine: Engine, followed: FollowedStudies, stop: StopRequest, names: Sequence[str]
    ) -> Launched:
        """Find out how it went, and say what stopped it."""
        try:
            with _brief_calls(stop):
                followed.look_again(now=True)
                progress = tuple(read_progress(stored) for stored in followed.studies)
                codes = (
                    [stop.exit_code]
                    if stop.requested
                    else [self._judge(*b) for b in zip(followed.studies, progress, strict=True)]
                )
        except DATABASE_ERRORS:
            self.say("stopped; the storage does not answer, nothing is lost")
            return Launched(stop.exit_code if stop.requested else 1, stopped=True)
        launched = Launched(max(codes, default=0), progress=progress)
        if stop.requested:
            again = names or ["--serve"]
            left = sum(one.num_trials - one.num_finished for one in progress)
            self.say(f"stopped; {left} trials wait: skdtune launch {' '.join(again)}")
            return replace(launched, stopped=True)
        failures = [] if all(one.finished for one in progress) else engine.failures()
        if not failures:
            return launched
        problem = _problem(failures[0])
        if len(followed.studies) == 1:
            raise problem
        return replace(launched, problem=problem)

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


def _problem(failure: FailedWorker) -> SkdtuneError:
    """Return what a worker ended with as the error that it was."""
    message = failure.message.removeprefix("skdtune: ")
    for kind in (InputError, StudyPausedError):
        if failure.exit_code == kind.exit_code:
            return kind(message)
    return SkdtuneError(f"{message} (log: {failure.log})")


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
