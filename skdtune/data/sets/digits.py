"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels.

They are installed with the package, so a study on them runs without a network.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skdtune.data.cache import cached_image_set
from skdtune.data.data_set import DataSet
from skdtune.data.images import ImageSet, Split, image_set
from skdtune.data.splits import limit_per_class, stratified_split
from skdtune.data.wall import require_open
from skdtune.describe.config import DataConfig
from skdtune.describe.data_facts import DataFacts

TEST_FRACTION = 0.25
"""Share of the images that is set aside for the test."""

TEST_SEED = 20230518
"""Seed of that choice. A constant: no study may choose its own test images."""

_LARGEST_VALUE = 16


def load_digits_images(
    config: DataConfig, split: Split, data_dir: Path, cache_dir: Path
) -> ImageSet:
    """Load the training or the test images of the digits.

    The data set has no test part of its own, so a quarter of every class is set aside, always
    the same one.

    Args:
        config: data settings; ``max_per_class`` limits the training images.
        split: which part.
        data_dir: not used, the images come with scikit-learn.
        cache_dir: folder of the image caches.

    Raises:
        DataError: if the cache cannot be written.
        TestSplitClosedError: if the test part is asked for outside of a final evaluation.
    """
    require_open(split)
    images = cached_image_set(cache_dir, f"digits-{split}-{TEST_SEED}", lambda: _decode(split))
    if split == "test" or config.max_per_class is None:
        return images
    return images.take(limit_per_class(images.labels_N, config.max_per_class, config.split_seed))


def _decode(split: Split) -> ImageSet:
    # scikit-learn takes a second to import and a worker with a warm cache has no use for it.
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels_N = digits.target.astype(np.int64)
    train_N, test_N = stratified_split(labels_N, TEST_FRACTION, TEST_SEED)
    rows_N = train_N if split == "train" else test_N
    images_NHW = np.rint(digits.images[rows_N] * (255 / _LARGEST_VALUE)).astype(np.uint8)
    names = tuple(str(name) for name in digits.target_names)
    return image_set(images_NHW[..., np.newaxis], labels_N[rows_N], names)


DIGITS = DataSet(
    about=DataFacts(title="handwritten digits", num_classes=10, is_at_hand=True),
    load=load_digits_images,
)
