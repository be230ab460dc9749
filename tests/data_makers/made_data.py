"""Small data of every data set that tests can make: ``data_makers/<name>.py`` has a ``make``.

A data set without such a file is still tried for what is known of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from data_makers.photographs import CLASSES

from skdtune.data.data_set import DataSet

Entry = TypeVar("Entry", bound=DataSet)


@dataclass(frozen=True, kw_only=True)
class MadeData:
    """Data of one data set in a folder of a test."""

    settings: dict[str, Any]
    """Data settings of a study on them, beside the name."""

    test_only: Path
    """File or folder that only the test part needs."""

    is_missed: bool = True
    """That it is not there can be seen: a list names it, or it is the whole part."""


def few_classes(entry: Entry) -> Entry:
    """Return a data set that is known to have as few classes as small data have."""
    return replace(entry, about=replace(entry.about, num_classes=CLASSES))
