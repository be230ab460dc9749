"""What chance decides about the images of one epoch.

Everything is drawn on the CPU, whatever the training device is, so that a trial sees the same
images on every device; and for all images of the epoch at once, so that the training loop moves
it to the device in one go.

Shape legend: N images, A attempts.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Generator, Tensor

AREA = (0.08, 1.0)
"""Smallest and largest share of the area that a resized crop keeps (torchvision's default)."""

RATIO = (3 / 4, 4 / 3)
"""Smallest and largest width divided by height of a resized crop (torchvision's default)."""

_ATTEMPTS = 10


def epoch_generator(seed: int, epoch: int, stream: int = 0) -> Generator:
    """Make a source of chance that depends on seed, epoch and stream, and on nothing else."""
    # SeedSequence spreads similar pairs far apart: seed + epoch would make epoch 1 of seed 0 the
    # same as epoch 0 of seed 1.
    words = [seed, epoch, stream] if stream else [seed, epoch]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state) >> 1)


def draw_shifts(num_images: int, padding: int, generator: Generator) -> Tensor:
    """Draw where the windows of a padded crop begin.

    Returns:
        int64 of shape (N, 2), rows of (top, left), each from 0 to ``2 * padding``.
    """
    return torch.randint(0, 2 * padding + 1, (num_images, 2), generator=generator)


def draw_flips(num_images: int, generator: Generator) -> Tensor:
    """Draw which images are mirrored, each with probability one half; bool of shape (N,)."""
    return torch.rand(num_images, generator=generator) < 0.5


def draw_boxes(num_images: int, height: int, width: int, generator: Generator) -> Tensor:
    """Draw the boxes of a resized crop, as ``torchvision.transforms.RandomResizedCrop`` does.

    Area and ratio of sides are drawn until the box fits into the image, ten times at most; then
    the box is the largest one in the middle whose ratio is allowed.

    Returns:
        int64 of shape (N, 4), rows of (top, left, height, width).
    """
    shape = (num_images, _ATTEMPTS)
    area_NA = height * width * _uniform(AREA, shape, generator)
    log_ratio = (math.log(RATIO[0]), math.log(RATIO[1]))
    ratio_NA = torch.exp(_uniform(log_ratio, shape, generator))
    width_NA = torch.sqrt(area_NA * ratio_NA).round().long()
    height_NA = torch.sqrt(area_NA / ratio_NA).round().long()
    fits_NA = (width_NA >= 1) & (width_NA <= width) & (height_NA >= 1) & (height_NA <= height)
    first_N1 = fits_NA.int().argmax(dim=1, keepdim=True)
    fits_N = fits_NA.any(dim=1)
    # The largest middle box: one side is the image's, unless its ratio is allowed.
    middle_height, middle_width = height, width
    if width / height < RATIO[0]:
        middle_height = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        middle_width = round(height * RATIO[1])
    height_N = height_NA.gather(1, first_N1).squeeze(1).where(fits_N, torch.tensor(middle_height))
    width_N = width_NA.gather(1, first_N1).squeeze(1).where(fits_N, torch.tensor(middle_width))
    place_N2 = torch.rand(num_images, 2, generator=generator, dtype=torch.float64)
    top_N = torch.where(
        fits_N, (place_N2[:, 0] * (height - height_N + 1)).long(), (height - height_N) // 2
    )
    left_N = torch.where(
        fits_N, (place_N2[:, 1] * (width - width_N + 1)).long(), (width - width_N) // 2
    )
    return torch.stack((top_N, left_N, height_N, width_N), dim=1)


def _uniform(bounds: tuple[float, float], shape: tuple[int, int], generator: Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
