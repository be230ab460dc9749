"""What this machine trains on: its GPUs and their driver, or its cores."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial

from skdtune.doctor.finding import Finding, Installation

_found = partial(Finding, "device")


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at the GPUs as the driver and as torch see them, and at the cores."""
    from skdtune.analysis.tables import format_count
    from skdtune.cores import CoreWatch, num_cores
    from skdtune.engines.local_slots import ask_driver
    from skdtune.errors import in_one_line

    cores = num_cores()
    free = max(0.0, CoreWatch().num_free())
    crowded = free < cores / 2
    yield _found(
        "note" if crowded else "ok",
        f"{format_count(cores, 'core')}, {min(free, cores):.1f} of them free now",
        "workers on the CPU share them with what else runs" if crowded else "",
    )
    try:
        driven = ask_driver("index,name,driver_version")
    except (OSError, subprocess.TimeoutExpired) as error:
        driven = []
        yield _found("note", f"nvidia-smi does not answer: {in_one_line(error)}")
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
            name = torch.cuda.get_device_name(index)
            yield _found("ok", f"cuda:{index}: {name}, {free:.1f} of {total:.1f} GiB free")
        yield _found("ok", f"torch {torch.__version__} is built for CUDA {torch.version.cuda}")
    elif driven:
        yield _found(
            "wrong",
            f"the driver shows {'; '.join(driven)}, but torch {torch.__version__} cannot use them",
            "install a torch that is built for this driver (pytorch.org), or a newer driver; and "
            "look whether CUDA_VISIBLE_DEVICES hides them",
        )
    else:
        yield _found("ok", "no GPU: trials train on the CPU")
