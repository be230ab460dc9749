"""Choose images of every class: for validation, or for a smaller training set.

The choices rest on the raw 64-bit stream of PCG64, which NumPy keeps the same on every platform
and in every version; the methods of its ``Generator`` promise less.

Shape legend: N images, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skdtune.errors import DataError

# Two purposes must not share a stream: the images kept would be the ones that validate.
_SPLIT_STREAM = 1
_LIMIT_STREAM = 2


def stratified_split(
    labels_N: NDArray[np.int64], val_fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide images into a training and a validation part, class by class.

    Each class has at least one image in both parts, and its share in the validation part is
    within one image of ``val_fraction``.

    Args:
        labels_N: class number of each image.
        val_fraction: share of the validation part, above 0 and below 1.
        seed: the same seed gives the same parts on every machine.

    Returns:
        The row numbers of the training part and of the validation part, each ascending.

    Raises:
        DataError: if a class has fewer than two images.
    """
    ranks_N, sizes_N = _ranks_in_class(labels_N, seed, _SPLIT_STREAM)
    if len(sizes_N) and sizes_N.min() < 2:
        lonely = int(labels_N[sizes_N < 2][0])
        raise DataError(
            f"class {lonely} has 1 training image, and a split into training and validation "
            "needs 2 of each class: add images, or move the class elsewhere"
        )
    in_val_N = ranks_N < num_validating(sizes_N, val_fraction)
    return np.flatnonzero(~in_val_N), np.flatnonzero(in_val_N)


def num_validating(sizes: NDArray[np.int64], val_fraction: float) -> NDArray[np.int64]:
    """Return how many images of classes of some sizes, two or more each, go for validation."""
    chosen: NDArray[np.int64] = np.clip(np.rint(sizes * val_fraction), 1, sizes - 1).astype(int)
    return chosen


def limit_per_class(
    labels_N: NDArray[np.int64], max_per_class: int | None, seed: int
) -> NDArray[np.int64]:
    """Choose at most so many images of each class.

    A smaller limit chooses a part of what a larger one chooses.

    Args:
        labels_N: class number of each image.
        max_per_class: most images of one class; None keeps all.
        seed: the same seed gives the same choice on every machine.

    Returns:
        The row numbers kept, ascending.
    """
    if max_per_class is None:
        return np.arange(len(labels_N))
    ranks_N, _ = _ranks_in_class(labels_N, seed, _LIMIT_STREAM)
    return np.flatnonzero(ranks_N < max_per_class)


def _ranks_in_class(
    labels_N: NDArray[np.int64], seed: int, stream: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put the images of each class in a random order.

    Returns:
        The place of each image in the order of its class, and the size of its class.
    """
    keys_N = np.random.PCG64([stream, seed]).random_raw(len(labels_N))
    order_N = np.lexsort((keys_N, labels_N))
    _, first_K, class_N, sizes_K = np.unique(
        labels_N[order_N], return_index=True, return_inverse=True, return_counts=True
    )
    ranks_N = np.empty(len(labels_N), dtype=np.int64)
    ranks_N[order_N] = np.arange(len(labels_N)) - first_K[class_N]
    sizes_N = np.empty_like(ranks_N)
    sizes_N[order_N] = sizes_K[class_N]
    return ranks_N, sizes_N
