"""What images are, whatever the order and the files that they lie in.

Two people who have a data set in different layouts learn from this that they have the same images.
It is no part of what a study is held to: another order is another split.

Shape legend: H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from skdtune.describe.data_source import short_digest


def pixel_digest(pixels_HWC: NDArray[np.uint8]) -> bytes:
    """Return sixteen bytes that are equal for identical images, and for no others."""
    shape = repr(pixels_HWC.shape).encode()
    pixels = np.ascontiguousarray(pixels_HWC)
    return hashlib.blake2b(pixels.data, digest_size=16, key=shape).digest()


def content_digest(images: Iterable[tuple[str, bytes]]) -> str:
    """Identify a set of images in no order.

    Args:
        images: The name of the class of each image, and its :func:`pixel_digest`.

    Returns:
        Sixteen hexadecimal digits.
    """
    rows = sorted(name.encode() + b"\0" + digest for name, digest in images)
    return short_digest(b"".join(rows))
