"""Whether the C part can be built and loaded here; without it trials on the CPU are slower."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from skdtune.doctor.finding import Finding, Installation, Level


def examine(installation: Installation) -> Iterator[Finding]:
    """Build the C part where it is not there yet, as a worker would, and load it."""
    try:
        from skdtune.models.kernels.native import NATIVE_VARIABLE, load_kernels
    except ImportError:
        return
    if os.environ.get(NATIVE_VARIABLE) == "0":
        yield _found(
            "note", f"{NATIVE_VARIABLE}=0: torch computes alone, slower on a CPU", "unset it"
        )
        return
    compilers = (os.environ.get("CC"), "cc", "gcc", "clang")
    found = next((path for name in compilers if name and (path := shutil.which(name))), None)
    if load_kernels() is not None:
        yield _found("ok", "the C part is built and loaded")
    elif found is None:
        yield _found(
            "note",
            "there is no C compiler: torch computes alone, slower on a CPU",
            "install one (gcc or clang)",
        )
    else:
        yield _found(
            "wrong",
            f"the C part cannot be built with {found} or loaded; the line above says why",
            f"mend it, or set {NATIVE_VARIABLE}=0 for all workers alike",
        )


def _found(level: Level, says: str, remedy: str = "") -> Finding:
    return Finding(about="kernels", level=level, says=says, remedy=remedy)
