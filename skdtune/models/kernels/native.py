"""The kernels of this process; everything works without them.

A C compiler, if there is one, builds them in about two seconds (`library`), and all workers of a
machine share the result. Without one, or with ``SKDTUNE_NATIVE=0``, the modules that use them
compute with torch alone.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from typing import Any

import torch

from skdtune.models.kernels.library import BuildLeftError, ensure_library, native_folder

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

    def __init__(self, library: ctypes.CDLL) -> None:
        """Find the functions of a library.

        Raises:
            AttributeError: If it lacks one.
        """
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


#: What this process found, once it has looked: a form that computes must not change on the way.
_found: tuple[Kernels | None] | None = None


def load_kernels(must_leave: Callable[[], bool] = lambda: False) -> Kernels | None:
    """Return the kernels of this process, built if that was not done on this machine.

    Args:
        must_leave: Asked while another process, or a compiler, is waited for. Who had to leave
            gets None, and may ask again.

    Returns:
        The kernels, or None where there are none: why is in the log.
    """
    global _found
    if _found is None:
        try:
            _found = (_load(must_leave),)
        except BuildLeftError:
            return None
    return _found[0]


def forget_kernels() -> None:
    """Look for the kernels anew when they are needed next."""
    global _found
    _found = None


def _load(must_leave: Callable[[], bool]) -> Kernels | None:
    """Load the kernels; a library that is whole and yet of no use is built anew, once."""
    folder = native_folder()
    try:
        library = None if folder is None else ensure_library(folder, must_leave=must_leave)
        if folder is None or library is None:
            return None
        try:
            return Kernels(library.load())
        except (OSError, AttributeError) as error:
            logger.warning("%s is of no use (%s): it is built anew", library.path, error)
        library = ensure_library(folder, must_leave=must_leave, instead_of=library)
        return None if library is None else Kernels(library.load())
    except (OSError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        logger.warning("the kernels cannot be built, torch computes instead: %s", reason)
        return None
