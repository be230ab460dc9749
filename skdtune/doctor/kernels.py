"""Whether the kernels can be built and loaded here; without them trials on the CPU are slower."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from skdtune.doctor.finding import Finding, Installation
from skdtune.errors import in_one_line

_found = partial(Finding, "kernels")


def examine(installation: Installation) -> Iterator[Finding]:
    """Build the kernels where they are not there yet, as a worker would, and load them."""
    from skdtune.models.kernels.library import NATIVE_VARIABLE, ensure_library, native_folder

    folder = native_folder()
    if folder is None:
        says = f"{NATIVE_VARIABLE}=0: torch computes alone, which is slower on a CPU"
        yield _found("note", says, "unset it, unless that is what you want")
        return
    alike = f"or set {NATIVE_VARIABLE}=0 for all workers alike"
    try:
        library = ensure_library(folder)
    except OSError as error:
        yield _found("wrong", f"they cannot be built: {in_one_line(error)}", f"mend that, {alike}")
        return
    if library is None:
        says = "there is no C compiler: torch computes alone, which is slower on a CPU"
        yield _found("note", says, f"install gcc or clang, {alike}")
        return
    try:
        from skdtune.models.kernels.native import load_kernels
    except ImportError:
        return
    if load_kernels() is None:
        yield _found(
            "wrong", f"they cannot be loaded from {folder}", f"remove the library in it, {alike}"
        )
    else:
        yield _found("ok", "built for this processor and loaded")
