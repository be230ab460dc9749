"""Small data of every data set that tests can make: ``data_makers/<name>.py`` has a ``make``.

A data set without such a file is still tried for what is known of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class MadeData:
    """Data of one data set in a folder of a test."""

    settings: dict[str, Any]
    """Data settings of a study on them, beside the name."""

    test_only: Path
    """File or folder that only the test part needs."""
