"""Identical worker processes on this machine: started, followed, restarted, drained, stopped.

A worker that died is known by the token it was started with; its trial goes back to the queue at
once instead of when its lease runs out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from skdtune.engines.engine import FailedWorker, Job, Placement, Slot
from skdtune.engines.local_slots import plan_slots
from skdtune.queue.worker_token import new_token

#: A worker that dies this often within seconds of its start is not started again.
MAX_QUICK_DEATHS = 5

_QUICK_S = 30.0
#: Exit codes after which a restart would not help: done, wrong input, gave up, Ctrl-C.
_FINAL_EXIT_CODES = (0, 2, 4, 130)


@dataclass
class WorkerProcess:
    """One slot and the process that lives in it now."""

    slot: Slot
    log: Path
    process: subprocess.Popen[bytes] | None = None
    token: str = ""
    """What the storage knows the process by."""

    started_at: float = 0.0
    restarts: int = 0
    quick_deaths: int = 0
    not_before: float = 0.0
    exit_code: int | None = None
    is_surplus: bool = False
    """It finishes its trial and is not started again."""

    @property
    def done(self) -> bool:
        """The process ended and will not be started again."""
        return self.exit_code is not None


class LocalEngine:
    """Starts one worker for each slot of this machine and keeps them going.

    Args:
        job: What the workers are started for.
        placement: Which workers are wanted.
    """

    def __init__(self, job: Job, placement: Placement) -> None:
        self._job = job
        self._placement = placement
        self._slots: list[Slot] | None = None
        self._workers: list[WorkerProcess] = []
        self._is_stopping = False

    @property
    def num_workers(self) -> int:
        """Workers that were started, those that have ended included, but for surplus ones."""
        return sum(not worker.is_surplus for worker in self._workers)

    @property
    def num_restarts(self) -> int:
        """Times that a worker was started again."""
        return sum(worker.restarts for worker in self._workers)

    @property
    def stopping(self) -> bool:
        """The workers were asked to leave; none is started again."""
        return self._is_stopping

    @property
    def where_logs(self) -> str:
        """The folder of the logs."""
        return str(self._job.log_dir)

    def slots(self) -> list[Slot]:
        """Return the places of the workers that are wanted.

        Raises:
            DeviceError: If a GPU asked for is not there.
        """
        if self._slots is None:
            wanted = self._placement
            self._slots = plan_slots(wanted.gpus, wanted.workers, wanted.workers_per_gpu)
        return self._slots

    def start(self) -> None:
        """Start a worker in every slot."""
        self._job.log_dir.mkdir(parents=True, exist_ok=True)
        for slot in self.slots():
            self._add(slot)

    def poll(self) -> bool:
        """Look after the workers once; True while any of them lives or will be started again."""
        for worker in self._workers:
            if worker.process is not None and worker.process.poll() is not None:
                self._bury(worker)
            elif worker.process is None and not worker.done:
                if self._is_stopping or worker.is_surplus:
                    worker.exit_code = 0
                elif time.monotonic() >= worker.not_before:
                    worker.restarts += 1
                    self._spawn(worker)
        return any(not worker.done for worker in self._workers)

    def scale(self, num_workers: int) -> None:
        """Have so many workers from now on: more are started, surplus ones finish their trial.

        Raises:
            DeviceError: If a GPU asked for is not there.
        """
        self._placement, self._slots = replace(self._placement, workers=num_workers), None
        slots = self.slots()
        wanted = [worker for worker in self._workers if not worker.is_surplus]
        for worker in wanted[num_workers:]:
            worker.is_surplus = True
            if worker.process is not None and worker.process.poll() is None:
                worker.process.send_signal(signal.SIGUSR1)
        for slot in slots[len(wanted) :]:
            # Not the number of a worker that finishes its trial: it still writes its log.
            self._add(replace(slot, index=len(self._workers)))

    def drain(self) -> None:
        """Let every worker finish the trial in hand and take no other."""
        self._signal(signal.SIGUSR1)

    def interrupt(self) -> None:
        """Let every worker give its trial back and leave."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every worker at once; their trials go back to the queue."""
        self._signal(signal.SIGKILL)
        for worker in self._workers:
            if worker.process is not None:
                worker.process.wait()
                self._bury(worker)

    def failures(self) -> list[FailedWorker]:
        """Return the workers that ended with an error for good, the first one first."""
        failures = []
        for worker in self._workers:
            code = worker.exit_code
            # One that is surplus may be told so before it understands the signal.
            if code is not None and code not in (0, 130) and not worker.is_surplus:
                message = last_line(worker.log)
                failures.append(FailedWorker(exit_code=code, message=message, log=worker.log))
        return failures

    def _signal(self, number: signal.Signals) -> None:
        self._is_stopping = True
        for worker in self._workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.send_signal(number)

    def _add(self, slot: Slot) -> None:
        worker = WorkerProcess(slot, self._job.log_dir / f"worker-{slot.index}.log")
        self._workers.append(worker)
        self._spawn(worker)

    def _spawn(self, worker: WorkerProcess) -> None:
        worker.token = new_token()
        environment = {**os.environ, **self._job.environment_of(worker.slot, worker.token)}
        command = [sys.executable, "-P", "-m", "skdtune", *self._job.arguments]
        command += ["--device", worker.slot.device]
        with worker.log.open("ab") as log:
            worker.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C at the terminal is for the engine, which passes on what it means.
                start_new_session=True,
            )
        worker.started_at = time.monotonic()

    def _bury(self, worker: WorkerProcess) -> None:
        process = worker.process
        assert process is not None
        worker.process = None
        code = process.returncode
        if code not in (0, 2, 130):
            self._job.give_back(worker.token)
        quick = time.monotonic() - worker.started_at < _QUICK_S
        worker.quick_deaths = worker.quick_deaths + 1 if quick else 0
        worker.not_before = time.monotonic() + min(2.0**worker.quick_deaths - 1, 30.0)
        hopeless = worker.quick_deaths > MAX_QUICK_DEATHS
        # What was accepted once cannot be wrong input: the database was away when it came back.
        final = code in _FINAL_EXIT_CODES and not (code == 2 and worker.restarts)
        if self._is_stopping or worker.is_surplus or final or hopeless:
            worker.exit_code = code


def last_line(log: Path) -> str:
    """Return the last line of a worker's log, which is its error if it ended with one."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it left no message"
