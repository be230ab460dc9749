"""What every data set must give, whoever wrote it; looked at before it is cached or decoded.

Shape legend: N images, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdtune.catalogues.datasets import DATASETS
from skdtune.data.data_set import ArrayDataSet, DataSet, DecodedPart, FileListing, PartRequest
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError


def check_part(entry: DataSet, part: DecodedPart | FileListing, request: PartRequest) -> None:
    """Refuse what a data set must not give: other shapes, numbers or classes than promised.

    Args:
        entry: The data set.
        part: What it gave.
        request: What it was asked for.

    Raises:
        DataError: If something is wrong; it names the data set and the first fault.
    """
    fault = next(_faults(entry, part, request.fewest_per_class), None)
    if fault is not None:
        raise DataError(
            f"{DATASETS.described(request.name)} cannot be used, its {request.split} part is "
            f"not as it must be: {fault}; tell its authors, or use another version"
        )


def check_classes(listing: FileListing, request: PartRequest) -> None:
    """Refuse a class that lacks images when each of its files is counted once.

    Raises:
        DataError: If there is one; it names the class.
    """
    counts_K = np.bincount(listing.labels, minlength=len(listing.class_names))
    rarest, needed = int(counts_K.argmin()), request.fewest_per_class
    if counts_K[rarest] < needed:
        raise DataError(
            f"class {listing.class_names[rarest]!r} in {listing.folder} has {counts_K[rarest]} "
            f"images and needs at least {needed}, its links to one file counted once: add images "
            "or take the class out"
        )


def _faults(entry: DataSet, part: Any, fewest: int) -> Iterator[str]:
    """Go through the faults; each presumes that there was none before it."""
    form = DecodedPart if isinstance(entry, ArrayDataSet) else FileListing
    about = entry.about
    if not isinstance(part, form):
        yield f"it is a {form.__name__}, received {_kind(part)}"
    if isinstance(part, DecodedPart):
        yield from _faults_of_images(part.images_NHWC, about)
    names = part.class_names
    labels_N = part.labels_N if isinstance(part, DecodedPart) else np.asarray(part.labels)
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        yield f"2 classes or more have names, received {names!r:.80}"
    is_part = about.may_be_part and len(names) < (about.num_classes or 0)
    if about.num_classes not in (None, len(names)) and not is_part:
        yield f"it is known to have {about.num_classes} classes, received {len(names)}"
    if not isinstance(labels_N, np.ndarray) or labels_N.dtype.kind not in "iu":
        yield f"labels are integers of shape (N,), received {_kind(labels_N)}"
    if labels_N.shape != (len(part),):
        yield f"each image has one label, received {len(part)} images and {_kind(labels_N)}"
    yield from _faults_of_classes(labels_N, names, fewest)


def _faults_of_images(images: Any, about: DataFacts) -> Iterator[str]:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        yield f"images are uint8 of shape (N, H, W, C), received {_kind(images)}"
    _, height, width, channels = images.shape
    if about.image_shape not in (None, (channels, height, width)):
        yield f"images are known to be {about.image_shape} (C, H, W), received {_kind(images)}"


def _faults_of_classes(
    labels_N: NDArray[np.int64], names: tuple[str, ...], needed: int
) -> Iterator[str]:
    wrong_N = labels_N[(labels_N < 0) | (labels_N >= len(names))]
    if len(wrong_N):
        yield f"labels of {len(names)} classes are 0 to {len(names) - 1}, received {wrong_N[0]}"
    counts_K = np.bincount(labels_N.astype(np.int64), minlength=len(names))
    rarest = int(counts_K.argmin())
    if counts_K[rarest] < needed:
        yield f"each class has {needed} images or more, {names[rarest]!r} has {counts_K[rarest]}"


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__
