"""The images of one data set, or of one part of it, as plain arrays.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skdtune.data.short_hash import short_hash

Split = Literal["train", "test"]

_HASHED_IMAGES = 1024


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageSet:
    """Decoded images with their labels; row i of both arrays is the same image.

    The images are numbered channels first, whatever their order in memory; the cache and
    :func:`image_set` lay them out channels last, which is how batches are cut from them.
    """

    stored_NCHW: NDArray[np.uint8]
    """Pixel values 0 to 255 of these images, and perhaps of others; may be memory-mapped and
    read-only."""

    labels_N: NDArray[np.int64]
    """Class numbers 0 to ``num_classes - 1``."""

    class_names: tuple[str, ...]
    """Name of each class, by number."""

    fingerprint: str
    """Twelve hexadecimal digits that are the same wherever the same images are used."""

    rows_N: NDArray[np.int64] | None = None
    """Which rows of ``stored_NCHW`` these are, in this order; None for all of them."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels_N)

    @property
    def images_NCHW(self) -> NDArray[np.uint8]:
        """Pixel values 0 to 255; a copy where others are stored beside them."""
        if self.rows_N is None:
            return self.stored_NCHW
        return self.read(slice(None)).transpose(0, 3, 1, 2)

    @property
    def num_bytes(self) -> int:
        """Memory that the images take, or would take."""
        return len(self) * int(np.prod(self.image_shape))

    def read(self, rows_M: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """Copy some images, in the given order, into memory.

        Args:
            rows_M: row numbers in this image set.

        Returns:
            Pixel values of shape (M, H, W, C).
        """
        images_NHWC = self.stored_NCHW.transpose(0, 2, 3, 1)
        rows = rows_M if self.rows_N is None else self.rows_N[rows_M]
        # A slice would show the memory itself, anything else is a copy already.
        return np.array(images_NHWC[rows], copy=isinstance(rows, slice) or None)

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not each one has an image here."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        _, channels, height, width = self.stored_NCHW.shape
        return channels, height, width

    def take(self, rows_N: NDArray[np.int64]) -> ImageSet:
        """Return some images, in the given order, without a copy of them.

        Args:
            rows_N: row numbers in this image set.
        """
        return ImageSet(
            stored_NCHW=self.stored_NCHW,
            rows_N=rows_N if self.rows_N is None else self.rows_N[rows_N],
            labels_N=self.labels_N[rows_N],
            class_names=self.class_names,
            fingerprint=short_hash(self.fingerprint, rows_N.astype("<i8").tobytes()),
        )


def image_set(
    images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.int64], class_names: tuple[str, ...]
) -> ImageSet:
    """Make an image set whose fingerprint is taken from its content.

    Content, not files: two machines that hold the same images at different places, copied at
    different times, record the same fingerprint.

    Args:
        images_NHWC: pixel values 0 to 255.
        labels_N: class numbers.
        class_names: name of each class, by number.
    """
    digest = hashlib.sha256(repr((images_NHWC.shape, class_names)).encode())
    digest.update(labels_N.astype("<i8").tobytes())
    for start in range(0, len(images_NHWC), _HASHED_IMAGES):
        digest.update(np.ascontiguousarray(images_NHWC[start : start + _HASHED_IMAGES]).data)
    return ImageSet(
        stored_NCHW=images_NHWC.transpose(0, 3, 1, 2),
        labels_N=labels_N.astype(np.int64),
        class_names=class_names,
        fingerprint=digest.hexdigest()[:12],
    )
