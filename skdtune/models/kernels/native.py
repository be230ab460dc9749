"""The C of this package, built once for a machine and loaded; everything works without it.

The source lies beside this file. A C compiler, if there is one, builds it in about two seconds
into the cache of the home (or the folder that ``SKDTUNE_NATIVE`` names), for exactly this
processor and this source; all workers share the result. Without a compiler, or with
``SKDTUNE_NATIVE=0``, the modules that use it compute with torch alone.
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
from typing import Any

import torch

from skdtune.home import home

#: 0 to compute with torch alone, else the folder of the built library.
NATIVE_VARIABLE = "SKDTUNE_NATIVE"

_FOLDER = Path(__file__).parent
_SOURCE = _FOLDER / "kernels.c"
_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
# torch has loaded its OpenMP by then, and the library uses the same threads. Apple has none.
_FLAG_SETS = (("-fopenmp",), ())
_BUILD_S = 120

_POINTER, _COUNT, _FLAG, _NUMBER = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_double
_SIGNATURES: dict[str, list[Any]] = {
    "batch_norm_act": [
        *[_POINTER] * 3,
        *[_COUNT] * 3,
        *[_POINTER] * 4,
        *[_NUMBER, _NUMBER, _FLAG, _POINTER],
    ],
    "batch_norm_act_inference": [*[_POINTER] * 3, *[_COUNT] * 3, *[_POINTER] * 4, _NUMBER, _FLAG],
    "batch_norm_act_backward": [
        *[_POINTER] * 5,
        *[_COUNT] * 3,
        *[_POINTER, _FLAG, _POINTER, _POINTER],
    ],
    "depthwise": [*[_POINTER] * 3, *[_COUNT] * 5],
    "depthwise_backward": [*[_POINTER] * 5, *[_COUNT] * 5],
    "gate": [*[_POINTER] * 3, *[_COUNT] * 6, *[_POINTER] * 6],
    "gate_backward": [*[_POINTER] * 5, *[_COUNT] * 6, *[_POINTER] * 6],
}
_SUFFIXES = {torch.bfloat16: "bf16", torch.float32: "f32"}

#: Channels that are computed at once; a kernel takes maps of whole vectors.
LANES = 16

logger = logging.getLogger(__name__)


class Kernels:
    """The loaded library; every kernel takes maps of bfloat16 or float32, channels last."""

    def __init__(self, path: Path) -> None:
        """Load a library.

        Raises:
            OSError: If it cannot be loaded.
        """
        library = ctypes.CDLL(str(path))
        self._functions: dict[tuple[str, torch.dtype], Any] = {}
        for name, arguments in _SIGNATURES.items():
            for dtype, suffix in _SUFFIXES.items():
                function = getattr(library, f"{name}_{suffix}")
                function.argtypes, function.restype = arguments, ctypes.c_int
                self._functions[name, dtype] = function

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a kernel in the form for the type of its first tensor; None is a null pointer.

        Raises:
            MemoryError: If it could not have its small buffers.
        """
        function = self._functions[name, arguments[0].dtype]
        if function(*(a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments)):
            raise MemoryError(f"no memory for the buffers of {name}")


def kernels_for(feature_BCHW: torch.Tensor) -> Kernels | None:
    """Return the kernels if they can compute with a map, else None; a compiler has its own."""
    if (
        feature_BCHW.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and feature_BCHW.dtype in _SUFFIXES
        and feature_BCHW.is_contiguous(memory_format=torch.channels_last)
    ):
        return load_kernels()
    return None


def channels_last(map_BCHW: torch.Tensor, like_BCHW: torch.Tensor) -> torch.Tensor:
    """Bring a map to the type of another one and to channels last; nothing if it is so already."""
    return map_BCHW.to(like_BCHW.dtype).contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=1)
def load_kernels() -> Kernels | None:
    """Build the library if that was not done on this machine, and load it.

    Returns:
        The kernels, or None where there are none: why is in the log.
    """
    named = os.environ.get(NATIVE_VARIABLE)
    if named == "0":
        return None
    try:
        path = _library(Path(named) if named else home().cache / "native")
        return None if path is None else Kernels(path)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        logger.warning("the C part cannot be built, torch computes instead: %s", reason)
        return None


def _library(folder: Path) -> Path | None:
    """Return the library, built if it is missing; several processes may do so at once.

    Returns:
        None if there is no library and no compiler.

    Raises:
        OSError: If it cannot be built, or is not only ours to write.
    """
    # Who could write there could run code here.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _require_ours(folder)
    names = [folder / f"skdtune-{_key(flags)}.so" for flags in _FLAG_SETS]
    library = next((path for path in names if path.exists()), None)
    if library is not None:
        _require_ours(library)
        return library
    commands = (os.environ.get("CC"), "cc", "gcc", "clang")
    compilers = (shutil.which(command) for command in commands if command)
    compiler = next((path for path in compilers if path), None)
    if compiler is None:
        logger.info("no C compiler: torch computes everything, which is slower")
        return None
    return _build(compiler, folder, names)


def _build(compiler: str, folder: Path, names: list[Path]) -> Path:
    """Build the library with the first set of flags that the compiler takes."""
    problem = ""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for flags, target in zip(_FLAG_SETS, names, strict=True):
            built = Path(scratch) / target.name
            command = [compiler, *_FLAGS, *flags, str(_SOURCE), "-o", str(built), "-lm"]
            done = subprocess.run(command, capture_output=True, timeout=_BUILD_S, check=False)
            if done.returncode == 0:
                built.chmod(0o700)
                os.replace(built, target)
                return target
            problem = done.stderr.decode(errors="replace").strip() or f"{compiler} failed"
            logger.debug("%s: %s", " ".join(command), problem)
    raise OSError(problem)


def _require_ours(path: Path) -> None:
    """Refuse a file or folder that somebody else could have written."""
    if not hasattr(os, "geteuid"):
        return
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(
            f"{path} belongs to somebody else, or others may write to it; "
            f"set {NATIVE_VARIABLE} to a folder of your own"
        )


def _key(flags: tuple[str, ...]) -> str:
    """Hash all that decides what is built: a home may be shared by different machines."""
    sources = [path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.is_file()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        wanted = ("model name", "flags", "Features", "CPU part")
        processor = "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    except OSError:
        processor = f"{platform.machine()} {platform.processor()}"
    parts = [*sources, processor.encode(), *(flag.encode() for flag in (*_FLAGS, *flags))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
