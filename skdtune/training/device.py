"""Which device a trial trains on, and in which arithmetic it computes there."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from skdtune.describe.config import ModelConfig
from skdtune.errors import DeviceError
from skdtune.models.kernels.native import load_kernels
from skdtune.training.compilation import compile_mode


def resolve_device(name: str | None = None) -> torch.device:
    """Find the device of a name; without one, the first GPU if there is any, else the CPU.

    Raises:
        DeviceError: If the device is unknown or not there; names those that are.
    """
    if name is None or name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}: {_available()}") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not supported: {_available()}")
    if device.type == "cpu":
        return torch.device("cpu")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r} is not there: {_available()}")
    return torch.device("cuda", index)


def _available() -> str:
    count = torch.cuda.device_count()
    names = ["cpu", *(f"cuda:{index}" for index in range(count))]
    return f"this machine has {', '.join(names)}"


def describe_device(device: torch.device) -> str:
    """Name the hardware behind a device, for the record of a trial."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the memory of the device, or of the host, is full."""
    # Torch has no class of its own for the host's memory.
    on_host = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return on_host or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def describe_kernels(device: torch.device) -> str:
    """Name what computes on a device beside torch's own operations, for the record of a trial."""
    mode = compile_mode()
    if mode is not None:
        return f"compiled ({mode})"
    return "native" if device.type == "cpu" and load_kernels() is not None else "torch"


def prepare_kernels(device: torch.device, must_leave: Callable[[], bool]) -> None:
    """Build what computes on a device ahead of the first step, where that must be built.

    Args:
        device: Where trials will train.
        must_leave: Asked while a compiler, or another process, is waited for.
    """
    if device.type == "cpu" and compile_mode() is None:
        load_kernels(must_leave)


@dataclass(frozen=True)
class Arithmetic:
    """What decides the digits of a result beside seed and data; a trial records it."""

    precision: str
    """Type of the products."""

    kernels: str
    """What computes beside torch's own operations."""

    threads: int
    """Threads of the process: they decide how sums are split."""


def arithmetic_on(device: torch.device, dtype: torch.dtype | None) -> Arithmetic:
    """Describe how this process computes now.

    Args:
        device: Where it trains.
        dtype: The type of autocast, None for float32.
    """
    return Arithmetic(
        precision=str(dtype or torch.float32).removeprefix("torch."),
        kernels=describe_kernels(device),
        threads=torch.get_num_threads(),
    )


def autocast_dtype(config: ModelConfig, device: torch.device) -> torch.dtype | None:
    """Return the type of autocast, None for plain float32.

    ``auto`` takes bfloat16 only where the device has instructions for it; elsewhere it is
    emulated, and slower than float32.
    """
    if config.precision == "float32":
        return None
    if config.precision == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        has_instructions = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has_avx512, has_amx = (
            getattr(torch.cpu, name, lambda: False)
            for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
        has_instructions = bool(has_avx512() or has_amx())
    return torch.bfloat16 if has_instructions else None


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Open autocast of a type on a device; nothing for None."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
