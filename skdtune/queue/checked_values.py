"""Values that anybody may have written into the storage: what they should be, or nothing."""

from __future__ import annotations

import math
from typing import Any

#: Seconds since 1970 at which the last year begins that a date can show, in any time zone.
_YEAR_9999 = 253_370_764_800


def measured(value: Any) -> float | None:
    """Return a number as it is, also one that is not finite, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def number(value: Any) -> float | None:
    """Return a finite number as it is, and None for anything else."""
    plain = measured(value)
    return plain if plain is not None and math.isfinite(plain) else None


def whole(value: Any) -> int | None:
    """Return a whole number, and None for what is no number."""
    plain = number(value)
    return None if plain is None else int(plain)


def count(value: Any) -> int | None:
    """Return a whole number above zero, and None for anything else."""
    plain = whole(value)
    return plain if plain is not None and plain > 0 else None


def instant(value: Any) -> float:
    """Return seconds since 1970 that a date can show, 0 for anything else."""
    plain = number(value)
    return plain if plain is not None and 0 <= plain < _YEAR_9999 else 0.0


def text(value: Any) -> str | None:
    """Return anything as text; None stays None."""
    return None if value is None else str(value)
