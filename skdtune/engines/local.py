"""Identical worker processes on this machine: started, followed, restarted, drained, stopped.

The supervisor holds no state of the study. A worker that died is known by its process id; its
trial goes back to the queue at once instead of when its lease runs out.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skdtune.errors import DeviceError

#: A worker that dies this often within seconds of its start is not started again.
MAX_QUICK_DEATHS = 5

#: Where set, it decides the threads of every worker instead.
THREADS_VARIABLE = "OMP_NUM_THREADS"

#: Where set, it decides how glibc gives memory to CPU workers instead.
MALLOC_VARIABLE = "GLIBC_TUNABLES"

# A step allocates and frees the same large maps again and again. Huge pages, and memory that is
# kept instead of given back, spare it thousands of page faults.
_MALLOC = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:"
    "glibc.malloc.trim_threshold=1073741824"
)

_QUICK_S = 30.0
#: Exit codes after which a restart would not help: done, wrong input, gave up, Ctrl-C.
_FINAL_EXIT_CODES = (0, 2, 4, 130)


@dataclass(frozen=True)
class Slot:
    """A place for one worker: a device, and the environment that shows it alone."""

    index: int
    device: str
    label: str
    environment: Mapping[str, str]


def plan_slots(gpus: str | None, workers: int | None, workers_per_gpu: int = 1) -> list[Slot]:
    """Decide which workers to start.

    Args:
        gpus: ``all``, a list such as ``0,2``, or ``none``; default all if there are any.
        workers: Number of workers in all, dealt to the GPUs in turn; default ``workers_per_gpu``
            for each GPU, or one for each core without GPUs.
        workers_per_gpu: Workers that share one GPU.

    Raises:
        DeviceError: If a GPU asked for is not there.
    """
    chosen = _choose_gpus(gpus)
    cores = num_cores()
    number = workers or (len(chosen) * workers_per_gpu if chosen else cores)
    # CPU workers get one thread each: several single-threaded workers are faster than few with
    # many, do not collapse when a core is taken away, and give the same numbers whatever the
    # number of cores.
    # GPU workers share the cores.
    threads = os.environ.get(THREADS_VARIABLE) or str(max(1, cores // number) if chosen else 1)
    slots = []
    for index in range(number):
        gpu = chosen[index % len(chosen)] if chosen else None
        environment = {"CUDA_VISIBLE_DEVICES": gpu or "", THREADS_VARIABLE: threads}
        if gpu is None:
            environment[MALLOC_VARIABLE] = os.environ.get(MALLOC_VARIABLE) or _MALLOC
            slots.append(Slot(index, "cpu", "cpu", environment))
        else:
            # Without it CUDA counts the fastest GPU first, and nvidia-smi by place on the bus.
            environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            slots.append(Slot(index, "cuda:0", f"gpu {gpu}", environment))
    return slots


def _choose_gpus(wanted: str | None) -> list[str]:
    if wanted == "none":
        return []
    present = list_gpus()
    if wanted in (None, "all"):
        if wanted == "all" and not present:
            raise DeviceError("--gpus all: this machine shows no GPU; --gpus none uses the CPU")
        return present
    chosen = [name.strip() for name in str(wanted).split(",") if name.strip()]
    missing = [name for name in chosen if name not in present]
    if missing or not chosen:
        gpus = f"GPUs {', '.join(present)}" if present else "no GPU (--gpus none uses the CPU)"
        raise DeviceError(f"--gpus {wanted}: this machine shows {gpus}")
    return chosen


def list_gpus() -> list[str]:
    """List the GPUs of this machine by index, within ``CUDA_VISIBLE_DEVICES`` if it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run(
        [program, "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return listed.stdout.split() if listed.returncode == 0 else []


def num_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the cores that this process may use, whole ones only, at least 1.

    A container may see all cores of its machine and still be allowed the time of only a few.

    Args:
        cgroup: Folder of the control group, as a container sees its own.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        # No control group, or one without a limit ("max").
        return cores


@dataclass
class WorkerProcess:
    """One slot and the process that lives in it now."""

    slot: Slot
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restarts: int = 0
    quick_deaths: int = 0
    not_before: float = 0.0
    exit_code: int | None = None

    @property
    def alive(self) -> bool:
        """The process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def done(self) -> bool:
        """The process ended and will not be started again."""
        return self.exit_code is not None


@dataclass
class LocalSupervisor:
    """Starts one worker for each slot and keeps them going.

    Args:
        study: Name of the study.
        slots: Where to start workers.
        environment: Variables that every worker gets; the storage URL travels here and not on
            the command line, where every user of the machine could read its password.
        log_dir: Folder of the workers' logs.
        give_back: Called with the process id of a worker that died.
    """

    study: str
    slots: list[Slot]
    environment: Mapping[str, str]
    log_dir: Path
    give_back: Callable[[int], None]
    workers: list[WorkerProcess] = field(default_factory=list)
    stopping: bool = False

    def start(self) -> None:
        """Start all workers."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        for slot in self.slots:
            worker = WorkerProcess(slot, self.log_dir / f"worker-{slot.index}.log")
            worker.log.write_bytes(b"")
            self.workers.append(worker)
            self._spawn(worker)

    def poll(self) -> bool:
        """Look after the workers once; True while any of them lives or will be started again."""
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is not None:
                self._bury(worker)
            elif worker.process is None and not worker.done:
                if self.stopping:
                    worker.exit_code = 0
                elif time.monotonic() >= worker.not_before:
                    worker.restarts += 1
                    self._spawn(worker)
        return any(not worker.done for worker in self.workers)

    def drain(self) -> None:
        """Let every worker finish the trial in hand and take no other."""
        self._stop(signal.SIGUSR1)

    def interrupt(self) -> None:
        """Let every worker give its trial back and leave."""
        self._stop(signal.SIGTERM)

    def kill(self) -> None:
        """End every worker at once; their trials go back to the queue."""
        self._stop(signal.SIGKILL)
        for worker in self.workers:
            if worker.process is not None:
                worker.process.wait()
                self._bury(worker)

    def _stop(self, number: signal.Signals) -> None:
        self.stopping = True
        for worker in self.workers:
            if worker.alive and worker.process is not None:
                worker.process.send_signal(number)

    def _spawn(self, worker: WorkerProcess) -> None:
        environment = {**os.environ, **self.environment, **worker.slot.environment}
        command = [sys.executable, "-P", "-m", "skdtune", "worker", self.study]
        command += ["--device", worker.slot.device]
        with worker.log.open("ab") as log:
            worker.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C at the terminal is for the supervisor, which passes on what it means.
                start_new_session=True,
            )
        worker.started_at = time.monotonic()

    def _bury(self, worker: WorkerProcess) -> None:
        process = worker.process
        assert process is not None
        worker.process = None
        code = process.returncode
        if code not in (0, 2, 130):
            self.give_back(process.pid)
        quick = time.monotonic() - worker.started_at < _QUICK_S
        worker.quick_deaths = worker.quick_deaths + 1 if quick else 0
        worker.not_before = time.monotonic() + min(2.0**worker.quick_deaths - 1, 30.0)
        hopeless = worker.quick_deaths > MAX_QUICK_DEATHS
        # What was accepted once cannot be wrong input: the database was away when it came back.
        final = code in _FINAL_EXIT_CODES and not (code == 2 and worker.restarts)
        if self.stopping or final or hopeless:
            worker.exit_code = code


def last_line(log: Path) -> str:
    """Return the last line of a worker's log, which is its error if it ended with one."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it left no message"


def this_host() -> str:
    """Return the host name under which this machine's workers hold their leases."""
    return socket.gethostname()
