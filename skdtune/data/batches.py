"""Batches of images on the training device, from images that lie there as bytes.

Shape legend: N images, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from skdtune.data.augmentation import flip, normalise, pad_crop, resized_crop
from skdtune.data.draws import draw_boxes, draw_flips, draw_shifts, epoch_generator
from skdtune.data.images import ImageSet
from skdtune.data.plans import BatchPlan, Plain
from skdtune.describe.data_config import DataConfig


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that take one step together; everything lies on the training device."""

    images_BCHW: Tensor
    """float32, normalised, channels last in memory."""

    labels_B: Tensor
    """int64 class numbers."""

    indices_B: Tensor
    """int64 row numbers in the image set."""

    second_BCHW: Tensor | None = None
    """Where the batch plan has one: a second image for each, its partner or another view."""


class DeviceImages:
    """An image set as bytes on the training device, with what normalises it.

    On a GPU this is the only copy that training needs. On the CPU it shares the memory of the
    image set where that is writable.
    """

    def __init__(
        self,
        image_set: ImageSet,
        mean_C: NDArray[np.float32],
        std_C: NDArray[np.float32],
        device: torch.device | str,
    ) -> None:
        """Move the images to the device.

        Args:
            image_set: images and labels.
            mean_C: mean of each channel on the scale 0 to 1.
            std_C: standard deviation of each channel on the same scale, above 0.
            device: the training device.
        """
        array_NCHW = image_set.images_NCHW
        if not array_NCHW.flags.writeable:
            # PyTorch knows no read-only tensors and warns about the images of a shared cache.
            array_NCHW = array_NCHW.copy(order="K")
        images_NCHW = torch.from_numpy(array_NCHW).to(device)
        self.images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
        self.labels_N = torch.from_numpy(image_set.labels_N).to(device)
        self.mean_C = torch.from_numpy(mean_C).to(device)
        self.std_C = torch.from_numpy(std_C).to(device)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels_N)

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return self.images_NCHW.device

    def raw(self, indices_B: Tensor) -> Tensor:
        """Gather raw images, uint8 of shape (B, C, H, W), channels last in memory."""
        # index_select copies whole images; on channels-last numbering it would go by pixels.
        images_NHWC = self.images_NCHW.permute(0, 2, 3, 1)
        return images_NHWC.index_select(0, indices_B).permute(0, 3, 1, 2)

    def normalised_like(self, others: DeviceImages) -> DeviceImages:
        """Return the same images, normalised as others are: those that a network learned from."""
        images = copy.copy(self)
        images.mean_C, images.std_C = others.mean_C, others.std_C
        return images

    def normalised(self, raw_BCHW: Tensor) -> Tensor:
        """Bring gathered images to mean 0 and standard deviation 1; float32."""
        return normalise(raw_BCHW, self.mean_C, self.std_C)

    def batch(self, raw_BCHW: Tensor, indices_B: Tensor) -> Batch:
        """Make a batch of images that were gathered, and perhaps augmented, before."""
        return Batch(
            images_BCHW=self.normalised(raw_BCHW),
            labels_B=self.labels_N.index_select(0, indices_B),
            indices_B=indices_B,
        )


class TrainBatches:
    """Augmented batches of a training set, by a batch plan.

    The order and the augmentation of an epoch follow from the seed and the number of the epoch
    alone: a trial that is resumed sees what it would have seen, and so does any device.
    """

    def __init__(
        self, images: DeviceImages, config: DataConfig, seed: int, plan: BatchPlan | None = None
    ) -> None:
        """Plan batches; nothing is drawn yet.

        Args:
            images: the training images.
            config: batch size and augmentation.
            seed: seed of the trial.
            plan: which images take a step together; default a plain shuffle.
        """
        self._images = images
        self._config = config
        self._seed = seed
        self._plan = plan or Plain(len(images), config.batch_size)

    def __len__(self) -> int:
        """Count the steps of one epoch."""
        return self._plan.num_steps

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch trains on, all views and partners counted."""
        return self._plan.num_steps * self._plan.images_per_step

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            epoch: number of the epoch, counted from 0. Epochs may be asked for in any order.
        """
        order, others = (epoch_generator(self._seed, epoch, stream) for stream in (0, 1))
        rows = self._plan.draw(order, others)
        main = self._draw(rows.main_SR, order)
        second = None if rows.second_SR is None else self._draw(rows.second_SR, others)
        for step in range(len(self)):
            raw_BCHW, indices_B = self._augmented(main, step)
            batch = self._images.batch(raw_BCHW, indices_B)
            if second is not None:
                raw_BCHW, indices_B = self._augmented(second, step)
                batch = replace(batch, second_BCHW=self._images.normalised(raw_BCHW))
            yield batch

    def _augmented(self, draws: dict[str, Tensor], step: int) -> tuple[Tensor, Tensor]:
        """Gather and augment the images of one step."""
        drawn = {name: values_SB[step] for name, values_SB in draws.items()}
        raw_BCHW = self._images.raw(drawn["indices"])
        if "shifts" in drawn:
            top_B, left_B = drawn["shifts"].unbind(1)
            raw_BCHW = pad_crop(raw_BCHW, top_B, left_B, self._config.crop_padding)
        if "boxes" in drawn:
            raw_BCHW = resized_crop(raw_BCHW, *drawn["boxes"].unbind(1))
        if "flips" in drawn:
            raw_BCHW = flip(raw_BCHW, drawn["flips"])
        return raw_BCHW, drawn["indices"]

    def _draw(self, rows_SR: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Draw how the images of an epoch are augmented, and move it to the device once."""
        draws: dict[str, Tensor] = {}
        used = rows_SR.numel()
        # Flips before crops: whether images are cropped does not change which are mirrored.
        if self._config.flip:
            draws["flips"] = draw_flips(used, generator)
        if self._config.crop == "pad":
            draws["shifts"] = draw_shifts(used, self._config.crop_padding, generator)
        if self._config.crop == "resized":
            height, width = self._images.images_NCHW.shape[2:]
            draws["boxes"] = draw_boxes(used, height, width, generator)
        shape = rows_SR.shape
        by_step = {name: drawn.view(*shape, *drawn.shape[1:]) for name, drawn in draws.items()}
        return {
            name: drawn.to(self._images.device)
            for name, drawn in {"indices": rows_SR, **by_step}.items()
        }


def val_batches(images: DeviceImages, batch_size: int = 1024) -> Iterator[Batch]:
    """Yield all images in their order, as they are; the last batch may be smaller.

    Args:
        images: validation or test images.
        batch_size: images in one batch; it has no influence on what is computed from them.
    """
    indices_N = torch.arange(len(images), device=images.device)
    for start in range(0, len(images), batch_size):
        indices_B = indices_N[start : start + batch_size]
        yield images.batch(images.raw(indices_B), indices_B)
