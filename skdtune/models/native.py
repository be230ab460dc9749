"""The C of this package, built once for a machine and loaded; everything works without it.

The source lies beside this file. A C compiler, if there is one, builds it in about two seconds into
the cache of the home, for exactly this processor and this source; all workers share the result.
Without a compiler, or with ``SKDTUNE_NATIVE=0``, the modules that use it compute with torch alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from skdtune.home import home

#: Set to 0 to compute with torch alone.
NATIVE_VARIABLE = "SKDTUNE_NATIVE"

_SOURCE = Path(__file__).with_name("batch_norm_act.c")
_INCLUDED = Path(__file__).with_name("batch_norm_act_passes.h")
_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
# torch has loaded its OpenMP by then, and the library uses the same threads. Apple has none.
_FLAG_SETS = (("-fopenmp",), ())
_BUILD_S = 120

_POINTER, _COUNT, _FLAG, _NUMBER = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_double
_SIGNATURES = {
    "forward": [_POINTER] * 3
    + [_COUNT] * 3
    + [_POINTER] * 4
    + [_NUMBER, _NUMBER, _FLAG, _POINTER],
    "inference": [_POINTER] * 3 + [_COUNT] * 3 + [_POINTER] * 4 + [_NUMBER, _FLAG],
    "backward": [_POINTER] * 5 + [_COUNT] * 3 + [_POINTER, _FLAG, _POINTER, _POINTER],
}

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def native_library() -> ctypes.CDLL | None:
    """Build the library if that was not done on this machine, and load it.

    Returns:
        The library, or None where there is none: why is in the log.
    """
    if os.environ.get(NATIVE_VARIABLE, "1") == "0":
        return None
    compiler = _find_compiler()
    if compiler is None:
        logger.info("no C compiler: batch normalisation is computed by torch, which is slower")
        return None
    try:
        library = ctypes.CDLL(str(_built(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("the C part cannot be built, torch computes instead: %s", _reason(error))
        return None
    for name, arguments in _SIGNATURES.items():
        for suffix in ("bf16", "f32"):
            getattr(library, f"{name}_{suffix}").argtypes = arguments
    return library


def _find_compiler() -> str | None:
    named = os.environ.get("CC")
    return next((found for name in (named, "cc", "gcc", "clang") if (found := _which(name))), None)


def _which(name: str | None) -> str | None:
    return shutil.which(name) if name else None


def _built(compiler: str) -> Path:
    """Return the library, built if it is missing; several processes may do so at once."""
    folder = home().cache / "native"
    target = folder / f"skdtune-{_key(compiler)}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / target.name
        for flags in _FLAG_SETS:
            command = [compiler, *_FLAGS, *flags, str(_SOURCE), "-o", str(built), "-lm"]
            done = subprocess.run(command, capture_output=True, timeout=_BUILD_S, check=False)
            if done.returncode == 0:
                os.replace(built, target)
                return target
    raise OSError(done.stderr.decode(errors="replace").strip() or f"{compiler} failed")


def _key(compiler: str) -> str:
    """Hash all that decides what is built: a home may be shared by different machines."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, timeout=_BUILD_S, check=True
    ).stdout
    parts = [_SOURCE.read_bytes(), _INCLUDED.read_bytes(), version, _processor().encode()]
    return hashlib.sha256(b"\0".join([*parts, *(flag.encode() for flag in _FLAGS)])).hexdigest()[
        :16
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
