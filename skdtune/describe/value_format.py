"""How a measured number is written wherever a person reads it: 97.03%, or 0.4312 for a loss.

JSON and CSV keep fractions of 1, as they were measured.
"""

from __future__ import annotations

import math
from typing import Any


def is_accuracy(name: str) -> bool:
    """Tell whether a number is a share of images, by what it is called."""
    return name.endswith("accuracy")


def format_accuracy(accuracy: float, error: float | None = None) -> str:
    """Return ``97.03%``, or ``97.03 ± 0.84%`` with an error.

    Args:
        accuracy: Share, 0 to 1.
        error: Its standard error or deviation, 0 to 1.
    """
    if error is None:
        return f"{accuracy:.2%}"
    return f"{accuracy * 100:.2f} ± {error * 100:.2f}%"


def format_value(value: float, name: str) -> str:
    """Return what a trial reported or came to.

    Args:
        value: The number.
        name: What it is called: validation accuracy, test accuracy, training loss.
    """
    return format_accuracy(value) if is_accuracy(name) else f"{value:.4f}"


def without_nan(value: Any) -> Any:
    """Return plain data as JSON can hold them: a number that is not finite is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return value
