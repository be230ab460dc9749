"""How much memory one worker of a study needs, measured before several share a device."""

from __future__ import annotations

import contextlib
import resource
import sys
from functools import cache
from typing import Any

import psutil
import torch

from skdtune.catalogues.models import networks
from skdtune.data.store import DataStore
from skdtune.describe import dotted
from skdtune.describe.config import TrialConfig
from skdtune.describe.epoch_report import NullReporter
from skdtune.describe.method_config import SETTINGS
from skdtune.describe.space import Choice, FloatRange, IntRange, StageSubsets
from skdtune.describe.spec import StudySpec
from skdtune.errors import DeviceError
from skdtune.home import Home, home, storage_url
from skdtune.models.backbone import build_backbone
from skdtune.queue.stored_study import load_study
from skdtune.training.device import resolve_device
from skdtune.worker.objective import build_trainer
from skdtune.worker.preparation import data_of_study
from skdtune.worker.probes.memory_need import MemoryNeed

_STEPS = 3
# What CUDA takes for itself in each process, beside all tensors; larger than it usually is.
_CONTEXT = 600 * 2**20
# What a larger value of costs more memory.
_SIZES = (
    *("data.batch_size", "data.image_size", "model.width", "model.name", "model.precision"),
    *(f"method.{name}.{field}" for name, s in SETTINGS.items() for field in s.memory_fields),
)


def probe_memory(
    study: str, *, storage: str | None = None, device: str | None = None, at: Home | None = None
) -> MemoryNeed:
    """Train a few steps of the hungriest configuration of a study, and look what they take.

    Args:
        study: Name of the study.
        storage: Storage URL; default ``SKDTUNE_STORAGE``, else the SQLite file of the home.
        device: Where the workers will train.
        at: Folders of data and cache; default those of ``SKDTUNE_HOME``.

    Raises:
        InputError: If study, storage, device or data cannot be used.
        DeviceError: If not even one worker fits.
    """
    resolved, at = resolve_device(device), at or home()
    with contextlib.closing(load_study(study, storage=storage_url(storage, at=at))) as stored:
        config = hungriest_config(stored.spec)
    free = _free_memory(resolved)
    try:
        store = DataStore(at.data, at.cache, resolved)
        data = data_of_study(store, stored.spec)
        trainer = build_trainer(config, data)
        trainer.run(_FewSteps())
        trainer.measure(data.train if data.val is None else data.val)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # cuDNN and cuBLAS have no class of their own for it.
        if isinstance(error, RuntimeError) and not _says_full(error):
            raise
        raise DeviceError(
            f"not even one worker of {study} fits on {resolved}: {free / 2**30:.2f} GiB are free"
        ) from None
    return MemoryNeed(needed=_taken_memory(resolved, free), free=free)


def hungriest_config(spec: StudySpec) -> TrialConfig:
    """Return the configuration of a study that needs the most memory, as far as sizes tell."""
    if candidates := spec.kind.candidates:
        return max((spec.trial_config({}, n) for n in range(len(candidates))), key=_sizes)
    params: dict[str, Any] = {}
    for path in _SIZES:
        param = spec.search.get(path)
        if isinstance(param, (FloatRange, IntRange)):
            params[path] = param.high
        elif isinstance(param, StageSubsets):
            params[path] = param.options()[-1]
        elif isinstance(param, Choice):
            params[path] = max(param.options(), key=_size_of_choice)
    return spec.trial_config({**spec.base_params(), **params}, 0)


def _sizes(config: TrialConfig) -> list[float]:
    flat = dotted.flatten(config.model_dump(mode="json"))
    stages = [len(flat.get(path) or ()) for path in _SIZES if path.endswith(".stages")]
    sized = [path for path in _SIZES if not path.endswith(".stages")]
    # The network first: it decides more than a batch does.
    ordered = sorted(sized, key=lambda path: path != "model.name")
    return [*(_size_of_choice(flat.get(path)) for path in ordered), *stages]


def _size_of_choice(option: Any) -> float:
    if isinstance(option, str):
        if option in networks():
            return _num_parameters(option)
        # Stages are joined by `+`.
        order = ["bfloat16", "auto", "float32"]
        return order.index(option) if option in order else option.count("+")
    return float(option or 0)


@cache
def _num_parameters(network: str) -> int:
    """Count what is trained of a network, as one that takes no memory has it."""
    with torch.device("meta"):
        built = build_backbone(network, in_channels=3, image_size=(32, 32), num_classes=10)
    return sum(parameter.numel() for parameter in built.parameters())


def _says_full(error: RuntimeError) -> bool:
    text = str(error)
    return any(words in text for words in ("out of memory", "ALLOC_FAILED", "allocate memory"))


class _FewSteps(NullReporter):
    """Interrupts a training after a few steps."""

    def __init__(self) -> None:
        self._left = _STEPS

    def interrupted(self, progress: float) -> bool:
        self._left -= 1
        return self._left < 0


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        # Asking makes the context of the driver, which every worker has one of.
        return int(torch.cuda.mem_get_info(device)[0]) + _CONTEXT
    return int(psutil.virtual_memory().available)


def _taken_memory(device: torch.device, free_before: int) -> int:
    """Return what this process holds at its peak, the context of the driver included."""
    if device.type == "cuda":
        # The difference also holds what others took meanwhile: on the safe side.
        held = int(torch.cuda.max_memory_reserved(device)) + _CONTEXT
        return max(held, free_before - int(torch.cuda.mem_get_info(device)[0]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)
