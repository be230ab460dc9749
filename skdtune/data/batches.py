"""Batches of images on the training device, from images that lie there as bytes.

Shape legend: N images, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from skdtune.data.augmentation import (
    as_bytes,
    erase,
    flip,
    jitter,
    mix,
    normalise,
    pad_crop,
    resized_crop,
)
from skdtune.data.draws import (
    Mixing,
    draw_boxes,
    draw_erasures,
    draw_factors,
    draw_flips,
    draw_mixings,
    draw_shifts,
    epoch_generator,
)
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

    other_labels_B: Tensor | None = None
    """Where images are mixed: the class numbers of what each was mixed with."""

    label_share: float = 1.0
    """What ``labels_B`` weigh then; the others weigh the rest."""


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
        self.image_shape = image_set.image_shape
        self._take(image_set, torch.device(device))
        self.labels_N = torch.from_numpy(image_set.labels_N).to(device)
        self.mean_C = torch.from_numpy(mean_C).to(device)
        self.std_C = torch.from_numpy(std_C).to(device)

    def _take(self, image_set: ImageSet, device: torch.device) -> None:
        array_NCHW = image_set.images_NCHW
        if not array_NCHW.flags.writeable:
            # PyTorch knows no read-only tensors and warns about the images of a shared cache.
            array_NCHW = array_NCHW.copy(order="K")
        images_NCHW = torch.from_numpy(array_NCHW).to(device)
        self.images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels_N)

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.labels_N.device

    def raw(self, indices_B: Tensor) -> Tensor:
        """Gather raw images, uint8 of shape (B, C, H, W), channels last in memory."""
        # index_select copies whole images; on channels-last numbering it would go by pixels.
        images_NHWC = self.images_NCHW.permute(0, 2, 3, 1)
        return images_NHWC.index_select(0, indices_B).permute(0, 3, 1, 2)

    def in_turn(self, rows_SR: Iterable[Tensor]) -> Iterator[Tensor]:
        """Gather the raw images of one step after the other.

        Args:
            rows_SR: int64 row numbers of every step, on any device.
        """
        for rows_R in rows_SR:
            yield self.raw(rows_R.to(self.device))

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

        def stream(number: int) -> Generator:
            return epoch_generator(self._seed, epoch, number)

        order, others = stream(0), stream(1)
        rows = self._plan.draw(order, others)
        # What came later draws from streams of its own, so that it changes nothing else.
        main = EpochView(self._images, self._config, rows.main_SR, order, stream, 10)
        second: EpochView | None = None
        if rows.second_SR is not None:
            second = EpochView(self._images, self._config, rows.second_SR, others, stream, 20)
        mixings = self._mixings(stream(2)) if self._config.mixes else None
        for step in range(len(self)):
            batch = main.batch(step)
            if second is not None:
                batch = replace(batch, second_BCHW=second.batch(step).images_BCHW)
            yield batch if mixings is None else _mixed(batch, mixings[step])

    def _mixings(self, generator: Generator) -> list[Mixing]:
        return draw_mixings(
            len(self),
            *self._images.image_shape[1:],
            mixup=self._config.mixup,
            cutmix=self._config.cutmix,
            generator=generator,
        )


class EpochView:
    """The images of one epoch, each augmented once; what is drawn for them is drawn at once.

    Args:
        images: all images.
        config: how they are augmented.
        rows_SR: which ones each step takes.
        generator: source of flips and crops.
        stream: makes the source of a number for what else is drawn.
        first_stream: number of the first of these sources.
    """

    def __init__(
        self,
        images: DeviceImages,
        config: DataConfig,
        rows_SR: Tensor,
        generator: Generator,
        stream: Callable[[int], Generator],
        first_stream: int,
    ) -> None:
        self._images = images
        self._config = config
        _, height, width = images.image_shape
        self._raw_images = images.in_turn(rows_SR)
        self._operations_SBO3: Tensor | None = None
        draws: dict[str, Tensor] = {}
        used = rows_SR.numel()
        # Flips before crops: whether images are cropped does not change which are mirrored.
        if config.flip:
            draws["flips"] = draw_flips(used, generator)
        if config.crop == "pad":
            draws["shifts"] = draw_shifts(used, config.crop_padding, generator)
        if config.crop == "resized":
            draws["boxes"] = draw_boxes(used, height, width, generator)
        if config.jitter:
            draws["factors"] = draw_factors(used, config.jitter, stream(first_stream))
        if config.erasing:
            draws["erasures"] = draw_erasures(
                used, height, width, config.erasing, stream(first_stream + 1)
            )
        if config.policy != "none":
            # torchvision's transforms are of no use without a policy.
            from skdtune.data.policies import Policy

            self._policy = Policy.of(config, height, width)
            drawn = self._policy.draw(used, stream(first_stream + 2))
            # Which images go together is decided on the CPU, wherever the images are.
            self._operations_SBO3 = drawn.view(*rows_SR.shape, *drawn.shape[1:])
        by_step = {
            name: drawn.view(*rows_SR.shape, *drawn.shape[1:]) for name, drawn in draws.items()
        }
        self._draws = {
            name: drawn.to(images.device)
            for name, drawn in {"indices": rows_SR, **by_step}.items()
        }

    def batch(self, step: int) -> Batch:
        """Gather and augment the images of a step; steps are asked for one after the other."""
        drawn = {name: values_SB[step] for name, values_SB in self._draws.items()}
        raw_BCHW = next(self._raw_images)
        if "shifts" in drawn:
            top_B, left_B = drawn["shifts"].unbind(1)
            raw_BCHW = pad_crop(raw_BCHW, top_B, left_B, self._config.crop_padding)
        if "boxes" in drawn:
            raw_BCHW = resized_crop(raw_BCHW, *drawn["boxes"].unbind(1))
        if "flips" in drawn:
            raw_BCHW = flip(raw_BCHW, drawn["flips"])
        if self._operations_SBO3 is not None:
            raw_BCHW = self._policy.apply(as_bytes(raw_BCHW), self._operations_SBO3[step])
        if "factors" in drawn:
            raw_BCHW = jitter(as_bytes(raw_BCHW), drawn["factors"])
        batch = self._images.batch(raw_BCHW, drawn["indices"])
        if "erasures" in drawn:
            batch = replace(batch, images_BCHW=erase(batch.images_BCHW, drawn["erasures"]))
        return batch


def _mixed(batch: Batch, mixing: Mixing) -> Batch:
    """Mix the images of a batch with each other, and say what their labels weigh."""
    return replace(
        batch,
        images_BCHW=mix(batch.images_BCHW, mixing),
        other_labels_B=batch.labels_B.roll(1, 0),
        label_share=mixing.share,
    )


def val_batches(images: DeviceImages, batch_size: int = 1024) -> Iterator[Batch]:
    """Yield all images in their order, as they are; the last batch may be smaller.

    Args:
        images: validation or test images.
        batch_size: images in one batch; it has no influence on what is computed from them.
    """
    indices = torch.split(torch.arange(len(images)), batch_size)
    for indices_B, raw_BCHW in zip(indices, images.in_turn(indices), strict=True):
        yield images.batch(raw_BCHW, indices_B.to(images.device))
