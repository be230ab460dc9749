"""The places for workers on this machine: GPUs, cores, and what each worker gets to see."""

from __future__ import annotations

import os
import shutil
import subprocess

from skdtune.cores import THREADS_VARIABLE, num_cores
from skdtune.engines.engine import Slot
from skdtune.errors import DeviceError

#: Where set, it decides how glibc gives memory to CPU workers instead.
MALLOC_VARIABLE = "GLIBC_TUNABLES"

# A step allocates and frees the same large maps again and again. Huge pages, and memory that is
# kept instead of given back, spare it thousands of page faults.
_MALLOC = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:"
    "glibc.malloc.trim_threshold=1073741824"
)


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
    return ask_driver("index")


def ask_driver(fields: str) -> list[str]:
    """List the GPUs that the driver shows, whoever may use them: a line each.

    Args:
        fields: What is asked of each, as ``nvidia-smi --query-gpu`` calls it.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run(
        [program, f"--query-gpu={fields}", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return listed.stdout.strip().splitlines() if listed.returncode == 0 else []
