"""Images that do not fit in memory: they stay in the cache on the disk, and are read as needed.

They were decoded once, so that an epoch reads bytes and decodes nothing, and the operating system
keeps in memory what it has room for, once for all workers of the machine. What comes out is what
comes out of memory, bit for bit.

Shape legend: B batch, C channels, H height, W width, S steps, R images of a step.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from skdtune.data.batches import DeviceImages
from skdtune.data.images import ImageSet
from skdtune.errors import InputError

MEMORY_VARIABLE = "SKDTUNE_IMAGES_GB"
"""Gigabytes of images that a worker may hold on its device; default half of what is free there."""

_STEPS_AHEAD = 4
_NUM_READERS = 2


class MappedImages(DeviceImages):
    """An image set that is read from the disk a batch at a time, some batches ahead."""

    def _take(self, image_set: ImageSet, device: torch.device) -> None:
        self._image_set = image_set

    def raw(self, indices_B: Tensor) -> Tensor:
        """Read raw images, uint8 of shape (B, C, H, W), channels last in memory."""
        images_BHWC = torch.from_numpy(self._image_set.read(indices_B.cpu().numpy()))
        if self.device.type == "cuda":
            # Pinned memory is copied while the device computes.
            images_BHWC = images_BHWC.pin_memory().to(self.device, non_blocking=True)
        return images_BHWC.permute(0, 3, 1, 2)

    def in_turn(self, rows_SR: Iterable[Tensor]) -> Iterator[Tensor]:
        """Read the raw images of one step after the other, some steps before they are needed."""
        pool = ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="images")
        try:
            ahead: deque[Future[Tensor]] = deque()
            for rows_R in rows_SR:
                ahead.append(pool.submit(self.raw, rows_R))
                if len(ahead) > _STEPS_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            # Also where the epoch is left before its end.
            pool.shutdown(wait=False, cancel_futures=True)


def place(
    images: ImageSet,
    mean_C: NDArray[np.float32],
    std_C: NDArray[np.float32],
    device: torch.device,
) -> DeviceImages:
    """Put images on a device, or leave them on the disk where they would not fit.

    Args:
        images: images and labels.
        mean_C: mean of each channel on the scale 0 to 1.
        std_C: standard deviation of each channel on the same scale, above 0.
        device: where batches are made.

    Raises:
        InputError: if ``SKDTUNE_IMAGES_GB`` is no number.
    """
    is_on_disk = isinstance(images.stored_NCHW, np.memmap)
    fits = images.num_bytes <= _bytes_for_images(device)
    kind = MappedImages if is_on_disk and not fits else DeviceImages
    return kind(images, mean_C, std_C, device)


def _bytes_for_images(device: torch.device) -> float:
    named = os.environ.get(MEMORY_VARIABLE)
    if named:
        try:
            gigabytes = float(named)
        except ValueError:
            gigabytes = -1.0
        if not gigabytes >= 0:
            raise InputError(f"{MEMORY_VARIABLE}: expected gigabytes, received {named!r}")
        return gigabytes * 1e9
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free / 2
    return psutil.virtual_memory().available / 2
