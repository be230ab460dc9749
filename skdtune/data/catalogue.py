"""From data settings to images: what a search may see, and what only an evaluation may see.

Shape legend: C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skdtune.data.channel_statistics import channel_statistics
from skdtune.data.images import ImageSet
from skdtune.data.loading import load_part
from skdtune.data.short_hash import short_hash
from skdtune.data.splits import stratified_split
from skdtune.describe.data_config import DataConfig


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchData:
    """What the trials of a search learn from and are judged on."""

    train: ImageSet
    """Images to learn from."""

    val: ImageSet
    """Images to be judged on, taken from the training part of the data set."""

    mean_C: NDArray[np.float32]
    """Mean of each channel of ``train`` on the scale 0 to 1."""

    std_C: NDArray[np.float32]
    """Standard deviation of each channel of ``train`` on the same scale."""

    fingerprint: str
    """Twelve hexadecimal digits that identify both parts; recorded with every trial."""


def load_search_data(config: DataConfig, *, data_dir: Path, cache_dir: Path) -> SearchData:
    """Load the training part of a data set and divide it; the test part is never opened.

    Args:
        config: data settings.
        data_dir: where the data lie unless ``config.root`` says otherwise.
        cache_dir: folder of the image caches.

    Raises:
        DataError: if the data are missing or damaged, or a class has fewer than two images.
    """
    full = load_training_images(config, data_dir=data_dir, cache_dir=cache_dir)
    train_N, val_N = stratified_split(full.labels_N, config.val_fraction, config.split_seed)
    train, val = full.take(train_N), full.take(val_N)
    mean_C, std_C = channel_statistics(train)
    return SearchData(
        train=train,
        val=val,
        mean_C=mean_C,
        std_C=std_C,
        fingerprint=short_hash(train.fingerprint, val.fingerprint),
    )


def load_training_images(config: DataConfig, *, data_dir: Path, cache_dir: Path) -> ImageSet:
    """Load the training part undivided, for the training that follows a search.

    Args:
        config: data settings.
        data_dir: where the data lie unless ``config.root`` says otherwise.
        cache_dir: folder of the image caches.

    Raises:
        DataError: if the data are missing or damaged.
    """
    return load_part(config, "train", data_dir=data_dir, cache_dir=cache_dir)


def load_test_images(config: DataConfig, *, data_dir: Path, cache_dir: Path) -> ImageSet:
    """Load the test part, which only a final evaluation can: the wall must be open.

    Args:
        config: data settings.
        data_dir: where the data lie unless ``config.root`` says otherwise.
        cache_dir: folder of the image caches.

    Raises:
        DataError: if the data are missing or damaged.
        TestSplitClosedError: if this is no final evaluation; nothing was read.
    """
    return load_part(config, "test", data_dir=data_dir, cache_dir=cache_dir)
