from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from skdtune.data.batches import DeviceImages, TrainBatches, val_batches
from skdtune.data.cache import cached_image_set
from skdtune.data.channel_statistics import channel_statistics
from skdtune.data.images import ImageSet
from skdtune.data.mapped_images import MEMORY_VARIABLE, MappedImages, place
from skdtune.describe.data_config import DataConfig
from skdtune.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture
def mapped(make_images: Callable[..., ImageSet], tmp_path: Path) -> ImageSet:
    whole = cached_image_set(tmp_path, "some", lambda _: make_images(40, channels=3))
    return whole.take(np.arange(39, 2, -1))


def both(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> tuple[DeviceImages, DeviceImages]:
    statistics = channel_statistics(images)
    monkeypatch.setenv(MEMORY_VARIABLE, "0")
    on_disk = place(images, *statistics, CPU)
    monkeypatch.setenv(MEMORY_VARIABLE, "1")
    in_memory = place(images, *statistics, CPU)
    assert isinstance(on_disk, MappedImages)
    assert not isinstance(in_memory, MappedImages)
    return on_disk, in_memory


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_from_the_disk_come_the_batches_that_come_from_memory(
    mapped: ImageSet, monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    settings = {"batch_size": 4, "crop": crop, "policy": "randaugment", "mixup": 0.2}
    config = DataConfig.model_validate({"name": "digits", "crop_padding": 2, **settings})
    epochs = [
        list(TrainBatches(images, config, seed=1).epoch(2)) for images in both(mapped, monkeypatch)
    ]
    assert len(epochs[0]) == 9
    for ours, theirs in zip(*epochs, strict=True):
        assert torch.equal(ours.images_BCHW, theirs.images_BCHW)
        assert torch.equal(ours.labels_B, theirs.labels_B)
        assert ours.images_BCHW.stride() == theirs.images_BCHW.stride()
    judged = [list(val_batches(images, 10)) for images in both(mapped, monkeypatch)]
    for ours, theirs in zip(*judged, strict=True):
        assert torch.equal(ours.images_BCHW, theirs.images_BCHW)


def test_an_epoch_that_is_left_leaves_no_reader_behind(
    mapped: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk, _ = both(mapped, monkeypatch)
    epoch = TrainBatches(on_disk, DataConfig(name="digits", batch_size=2), seed=0).epoch(0)
    next(epoch)
    readers = [thread for thread in threading.enumerate() if thread.name.startswith("images")]
    assert readers
    epoch.close()
    gc.collect()
    for reader in readers:
        reader.join(timeout=10)
        assert not reader.is_alive()


def test_images_that_lie_nowhere_else_stay_in_memory(
    make_images: Callable[..., ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, "0")
    images = make_images(5)
    assert type(place(images, *channel_statistics(images), CPU)) is DeviceImages


@pytest.mark.parametrize("wrong", ["much", "-1", "nan"])
def test_a_wrong_limit_is_one_line(
    mapped: ImageSet, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, wrong)
    with pytest.raises(InputError, match=f"{MEMORY_VARIABLE}: expected gigabytes, received"):
        place(mapped, *channel_statistics(mapped), CPU)


def test_the_statistics_of_images_on_the_disk_are_theirs(mapped: ImageSet) -> None:
    in_memory = ImageSet(
        stored_NCHW=mapped.read(slice(None)).transpose(0, 3, 1, 2),
        labels_N=mapped.labels_N,
        class_names=mapped.class_names,
        fingerprint="",
    )
    both_C = zip(channel_statistics(mapped), channel_statistics(in_memory), strict=True)
    assert all(np.array_equal(ours_C, theirs_C) for ours_C, theirs_C in both_C)
    assert mapped.num_bytes == in_memory.images_NCHW.nbytes
