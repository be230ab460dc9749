"""Augmentation policies: each image goes through a few operations that were drawn for it.

The operations are torchvision's own (``torchvision.transforms.v2.functional``), and so are the
tables of what they do at which magnitude: those of its ``RandAugment`` and ``TrivialAugmentWide``.
Images for which the same operation was drawn go through it together.

Sources: *RandAugment: Practical automated data augmentation with a reduced search space* (arXiv
1909.13719), https://arxiv.org/abs/1909.13719; *TrivialAugment: Tuning-free Yet State-of-the-Art
Data Augmentation* (arXiv 2103.10158), https://arxiv.org/abs/2103.10158, its wide space.

Shape legend: B batch, C channels (1 or 3), H height, W width, O operations one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as F

from skdtune.describe.data_config import DataConfig

NUM_MAGNITUDES = 31
"""Steps from the weakest to the strongest form of an operation (torchvision's default)."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a policy."""

    apply: Callable[[Tensor, float], Tensor]
    """Changes uint8 images ``[B, C, H, W]`` to a magnitude."""

    magnitudes: Sequence[float] = (0.0,) * NUM_MAGNITUDES
    """What it does at each step, in the float32 that torchvision counts them in."""

    has_sign: bool = False
    """Half of the magnitudes are negative."""


def _sheared(images: Tensor, magnitude: float, *, axis: int) -> Tensor:
    shear = [0.0, 0.0]
    shear[axis] = math.degrees(math.atan(magnitude))
    moved: Tensor = F.affine(
        images, angle=0.0, translate=[0, 0], scale=1.0, shear=shear, center=[0, 0]
    )
    return moved


def _moved(images: Tensor, magnitude: float, *, axis: int) -> Tensor:
    translate = [0, 0]
    translate[axis] = int(magnitude)
    moved: Tensor = F.affine(images, angle=0.0, translate=translate, scale=1.0, shear=[0.0, 0.0])
    return moved


def _blended(images: Tensor, magnitude: float, *, adjust: Callable[..., Tensor]) -> Tensor:
    return adjust(images, 1.0 + magnitude)


def _plain(images: Tensor, _magnitude: float, *, change: Callable[..., Tensor]) -> Tensor:
    return change(images)


def _operations(
    *, shear: float, width: float, height: float, degrees: float, blend: float, bits: int
) -> Mapping[str, Operation]:
    """List the fourteen operations in torchvision's order.

    Args:
        shear: Strongest tangent of a shear.
        width: Strongest move along the rows in pixels.
        height: Strongest move along the columns in pixels.
        degrees: Strongest rotation.
        blend: Strongest change of brightness, saturation, contrast and sharpness.
        bits: How many of the eight bits of a colour are lost at most.
    """
    adjusted = {
        "Brightness": F.adjust_brightness,
        "Color": F.adjust_saturation,
        "Contrast": F.adjust_contrast,
        "Sharpness": F.adjust_sharpness,
    }
    kept_bits = (8 - torch.arange(NUM_MAGNITUDES) / ((NUM_MAGNITUDES - 1) / bits)).round()
    return {
        "Identity": Operation(lambda images, _magnitude: images),
        "ShearX": Operation(partial(_sheared, axis=0), _steps(0.0, shear), has_sign=True),
        "ShearY": Operation(partial(_sheared, axis=1), _steps(0.0, shear), has_sign=True),
        "TranslateX": Operation(partial(_moved, axis=0), _steps(0.0, width), has_sign=True),
        "TranslateY": Operation(partial(_moved, axis=1), _steps(0.0, height), has_sign=True),
        "Rotate": Operation(F.rotate, _steps(0.0, degrees), has_sign=True),
        **{
            name: Operation(partial(_blended, adjust=adjust), _steps(0.0, blend), has_sign=True)
            for name, adjust in adjusted.items()
        },
        "Posterize": Operation(lambda images, m: F.posterize(images, int(m)), kept_bits.tolist()),
        "Solarize": Operation(lambda images, m: F.solarize(images, 255 * m), _steps(1.0, 0.0)),
        "AutoContrast": Operation(partial(_plain, change=F.autocontrast)),
        "Equalize": Operation(partial(_plain, change=F.equalize)),
    }


def _steps(first: float, last: float) -> Sequence[float]:
    steps: list[float] = torch.linspace(first, last, NUM_MAGNITUDES).tolist()
    return steps


def rand_augment_space(height: int, width: int) -> Mapping[str, Operation]:
    """Return the operations of RandAugment for images of a size, as torchvision has them."""
    share = 150 / 331
    return _operations(
        shear=0.3, width=share * width, height=share * height, degrees=30.0, blend=0.9, bits=4
    )


def trivial_augment_space() -> Mapping[str, Operation]:
    """Return the operations of TrivialAugment Wide, as torchvision has them."""
    return _operations(shear=0.99, width=32.0, height=32.0, degrees=135.0, blend=0.99, bits=6)


@dataclass(frozen=True, slots=True)
class Policy:
    """How many operations images go through, of which, and how strong they are."""

    space: Mapping[str, Operation]
    """The operations that there are."""

    num_layers: int
    """Operations one after the other."""

    step: int | None
    """Step of all their magnitudes, from 0 to 30; None draws one for each."""

    @classmethod
    def of(cls, config: DataConfig, height: int, width: int) -> Policy:
        """Return the policy that a trial names.

        Args:
            config: Its data settings, with a policy.
            height: Of the images.
            width: Of the images.
        """
        if config.policy == "trivialaugment":
            return cls(trivial_augment_space(), num_layers=1, step=None)
        space = rand_augment_space(height, width)
        return cls(space, config.policy_operations, config.policy_magnitude)

    def draw(self, num_images: int, generator: Generator) -> Tensor:
        """Draw which operations each image goes through.

        Returns:
            int64 ``[N, O, 3]``: number of the operation, step of its magnitude, 1 for its
            negative.
        """
        shape = (num_images, self.num_layers)
        number_NO = torch.randint(0, len(self.space), shape, generator=generator)
        step_NO = torch.randint(0, NUM_MAGNITUDES, shape, generator=generator)
        if self.step is not None:
            step_NO.fill_(self.step)
        is_negative_NO = torch.randint(0, 2, shape, generator=generator)
        return torch.stack((number_NO, step_NO, is_negative_NO), dim=-1)

    def apply(self, images_BCHW: Tensor, drawn_BO3: Tensor) -> Tensor:
        """Send every image through the operations that were drawn for it.

        Args:
            images_BCHW: raw images, uint8.
            drawn_BO3: of :meth:`draw`, on the CPU.

        Returns:
            uint8 images of the same shape, channels last in memory.
        """
        operations = list(self.space.values())
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        for drawn_B3 in drawn_BO3.unbind(1):
            changed_BCHW = images_BCHW.clone()
            groups, group_B = torch.unique(drawn_B3, dim=0, return_inverse=True)
            for group, (number, step, is_negative) in enumerate(groups.tolist()):
                operation = operations[number]
                magnitude = operation.magnitudes[step]
                if operation.has_sign and is_negative:
                    magnitude = -magnitude
                rows_G = (group_B == group).nonzero().squeeze(1).to(images_BCHW.device)
                changed_BCHW[rows_G] = operation.apply(images_BCHW[rows_G], magnitude)
            images_BCHW = changed_BCHW
        return images_BCHW
