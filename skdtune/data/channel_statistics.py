"""Mean and standard deviation of the pixels, which batches are normalised with.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skdtune.data.images import ImageSet

# 256 squares of a byte stay below 2**32, so the sums below are exact integers.
_SUMMED_IMAGES = 256


def channel_statistics(images: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Measure every channel over all pixels of all images, on the scale 0 to 1.

    The sums are exact, so the result does not depend on the order of the images. A channel of
    one constant value gets the standard deviation 1, so that dividing by it stays finite.

    Returns:
        The mean and the (population) standard deviation of each channel, both of shape (C,).
    """
    channels, height, width = images.image_shape
    sums = np.zeros(height * width * channels, dtype=np.int64)
    squares = np.zeros_like(sums)
    for start in range(0, len(images), _SUMMED_IMAGES):
        chunk_NHWC = images.read(slice(start, start + _SUMMED_IMAGES))
        chunk = chunk_NHWC.reshape(len(chunk_NHWC), -1)
        sums += chunk.sum(axis=0, dtype=np.uint32)
        squares += np.square(chunk, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
    num_pixels = len(images) * height * width
    mean_C = sums.reshape(-1, channels).sum(axis=0) / num_pixels
    mean_square_C = squares.reshape(-1, channels).sum(axis=0) / num_pixels
    std_C = np.sqrt(np.maximum(mean_square_C - mean_C**2, 0))
    std_C[std_C == 0] = 255
    return (mean_C / 255).astype(np.float32), (std_C / 255).astype(np.float32)
