"""What chance decides about the images of one epoch.

Everything is drawn on the CPU, whatever the training device is, so that a trial sees the same
images on every device; and for all images of the epoch at once, so that the training loop moves
it to the device in one go.

Shape legend: N images, A attempts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

AREA = (0.08, 1.0)
"""Smallest and largest share of the area that a resized crop keeps (torchvision's default)."""

RATIO = (3 / 4, 4 / 3)
"""Smallest and largest width divided by height of a resized crop (torchvision's default)."""

ERASED_AREA = (0.02, 0.33)
"""Smallest and largest share of the area that random erasing takes (torchvision's default)."""

ERASED_RATIO = (0.3, 3.3)
"""Smallest and largest height divided by width of what it takes (torchvision's default)."""

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


def draw_factors(num_images: int, strength: float, generator: Generator) -> Tensor:
    """Draw by how much brightness, contrast and saturation of each image change.

    Returns:
        float32 of shape (N, 3), each from ``1 - strength`` to ``1 + strength``, 1 for no change.
    """
    share_N3 = torch.rand(num_images, 3, generator=generator)
    return 1 + strength * (2 * share_N3 - 1)


def draw_erasures(
    num_images: int, height: int, width: int, probability: float, generator: Generator
) -> Tensor:
    """Draw the box that is erased of each image, as ``torchvision.transforms.v2.RandomErasing``.

    Returns:
        int64 of shape (N, 4), rows of (top, left, height, width); without height and width where
        nothing is erased: by chance, or because no box fitted in ten attempts.
    """
    shape = (num_images, _ATTEMPTS)
    is_erased_N = torch.rand(num_images, generator=generator) < probability
    area_NA = height * width * _uniform(ERASED_AREA, shape, generator)
    log_ratio = (math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1]))
    ratio_NA = torch.exp(_uniform(log_ratio, shape, generator))
    height_NA = torch.sqrt(area_NA * ratio_NA).round().long()
    width_NA = torch.sqrt(area_NA / ratio_NA).round().long()
    fits_NA = (height_NA < height) & (width_NA < width)
    first_N1 = fits_NA.int().argmax(dim=1, keepdim=True)
    is_erased_N &= fits_NA.any(dim=1)
    height_N = height_NA.gather(1, first_N1).squeeze(1) * is_erased_N
    width_N = width_NA.gather(1, first_N1).squeeze(1) * is_erased_N
    place_N2 = torch.rand(num_images, 2, generator=generator, dtype=torch.float64)
    top_N = (place_N2[:, 0] * (height - height_N + 1)).long()
    left_N = (place_N2[:, 1] * (width - width_N + 1)).long()
    return torch.stack((top_N, left_N, height_N, width_N), dim=1)


@dataclass(frozen=True, slots=True)
class Mixing:
    """How the images of a step are mixed, each with the one before it in the batch."""

    share: float
    """What an image keeps of itself, from 0 to 1; its label weighs as much."""

    box: tuple[int, int, int, int] | None = None
    """CutMix: top, left, bottom and right of what comes from the other image; None for mixup."""


def draw_mixings(
    num_steps: int,
    height: int,
    width: int,
    *,
    mixup: float,
    cutmix: float,
    generator: Generator,
) -> list[Mixing]:
    """Draw how the batches of an epoch are mixed, as torchvision's ``v2.MixUp`` and ``v2.CutMix``.

    Args:
        num_steps: Steps of the epoch.
        height: Of the images.
        width: Of the images.
        mixup: Parameter of the beta distribution of the shares; 0 is never.
        cutmix: The same for CutMix. Where both are, each step has one of them, by equal chances.
        generator: Source of chance.
    """
    is_cut_S = torch.rand(num_steps, generator=generator) < 0.5
    row_S = torch.randint(0, height, (num_steps,), generator=generator)
    column_S = torch.randint(0, width, (num_steps,), generator=generator)
    shares = [_beta(alpha, num_steps, generator) for alpha in (mixup, cutmix) if alpha]
    mixings = []
    for step in range(num_steps):
        is_cut = cutmix > 0 and (mixup == 0 or bool(is_cut_S[step]))
        share = float(shares[-1 if is_cut else 0][step])
        if not is_cut:
            mixings.append(Mixing(share))
            continue
        half = 0.5 * math.sqrt(1 - share)
        row, column = int(row_S[step]), int(column_S[step])
        top, bottom = max(0, row - int(half * height)), min(height, row + int(half * height))
        left, right = max(0, column - int(half * width)), min(width, column + int(half * width))
        # The label follows what is really seen, since a box may reach beyond the edge.
        share = 1 - (bottom - top) * (right - left) / (height * width)
        mixings.append(Mixing(share, (top, left, bottom, right)))
    return mixings


def _beta(alpha: float, number: int, generator: Generator) -> Tensor:
    """Draw from the beta distribution with equal parameters, as the share of a gamma variable."""
    # Tiny parameters make both variables 0 in float64: then the image stays as it is.
    shape = torch.full((2, number), alpha, dtype=torch.float64)
    own_N, other_N = torch._standard_gamma(shape, generator=generator)
    total_N = own_N + other_N
    return torch.where(total_N > 0, own_N / total_N, 1.0)


def _uniform(bounds: tuple[float, float], shape: tuple[int, int], generator: Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
