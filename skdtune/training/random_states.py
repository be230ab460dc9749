"""The random states of a process as plain data, so that a checkpoint can hold them safely."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of all global generators: torch's, the device's, numpy's, Python's.

    Trainings here draw from generators of their own; these are kept for what a library may draw.
    """
    legacy: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, gauss = legacy
    version, inner, following = random.getstate()
    return {
        "torch": torch.random.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [str(name), keys.tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(inner), following],
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Go back to the states that were taken before.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: If they are none.
    """
    torch.random.set_rng_state(states["torch"])
    if states["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    version, inner, following = states["python"]
    random.setstate((version, tuple(inner), following))
