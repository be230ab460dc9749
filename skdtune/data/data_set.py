"""What a data set is: what is known of it, and how its images and labels are decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skdtune.data.images import ImageSet, Split
from skdtune.describe.config import DataConfig
from skdtune.describe.data_facts import DataFacts


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set."""

    about: DataFacts
    """What is known of it."""

    load: Callable[[DataConfig, Split, Path, Path], ImageSet]
    """Loads a part: settings, part, data folder, cache folder."""
