from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skdtune.data.batches import Batch, DeviceImages, TrainBatches, val_batches
from skdtune.data.cache import cached_image_set
from skdtune.data.channel_statistics import channel_statistics
from skdtune.data.images import ImageSet, image_set
from skdtune.describe.config import DataConfig

MakeImages = Callable[..., ImageSet]


def on_device(images: ImageSet, device: str = "cpu") -> DeviceImages:
    return DeviceImages(images, *channel_statistics(images), device)


def config(**values: Any) -> DataConfig:
    return DataConfig(**{"name": "digits", "batch_size": 8, "crop_padding": 2, **values})


def pixels(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.images_BCHW for batch in batches])


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 5))
def test_an_epoch_visits_images_at_most_once(num_images: int, size: int, epoch: int) -> None:
    images_NHWC = np.zeros((num_images, 4, 4, 1), dtype=np.uint8)
    images = image_set(images_NHWC, np.arange(num_images), tuple(map(str, range(num_images))))
    train = TrainBatches(on_device(images), config(batch_size=size), seed=0)
    batches = list(train.epoch(epoch))
    assert len(batches) == len(train) == max(1, num_images // size)
    indices = torch.cat([batch.indices_B for batch in batches])
    assert len(indices) == len(set(indices.tolist())) == train.images_per_epoch
    # The labels are the row numbers, so they tell whether labels go with indices.
    assert torch.equal(indices, torch.cat([batch.labels_B for batch in batches]))


def test_fewer_images_than_a_batch_are_one_batch(make_images: MakeImages) -> None:
    train = TrainBatches(on_device(make_images(5)), config(), seed=0)
    (batch,) = train.epoch(0)
    assert len(train) == 1
    assert sorted(batch.indices_B.tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
def test_an_epoch_follows_from_seed_and_number_alone(make_images: MakeImages, crop: str) -> None:
    images = on_device(make_images())
    straight = TrainBatches(images, config(crop=crop), seed=3)
    epochs = [pixels(list(straight.epoch(epoch))) for epoch in range(3)]
    fresh = TrainBatches(images, config(crop=crop), seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(pixels(list(fresh.epoch(2))), epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
    other = TrainBatches(images, config(crop=crop), seed=4)
    assert not torch.equal(pixels(list(other.epoch(0))), epochs[0])


def test_no_augmentation_gives_the_images_themselves(make_images: MakeImages) -> None:
    images = make_images()
    device_images = on_device(images)
    train = TrainBatches(device_images, config(crop="none", flip=False), seed=0)
    plain = pixels(list(val_batches(device_images)))
    for batch in train.epoch(0):
        assert torch.equal(batch.images_BCHW, plain[batch.indices_B])


def test_flip_mirrors_half_of_the_images(make_images: MakeImages) -> None:
    images = on_device(make_images(2000))
    plain = pixels(list(val_batches(images)))
    flipped = 0
    for batch in TrainBatches(images, config(crop="none", batch_size=100), seed=0).epoch(0):
        straight = plain[batch.indices_B]
        same = (batch.images_BCHW == straight).flatten(1).all(1)
        mirrored = (batch.images_BCHW == straight.flip(3)).flatten(1).all(1)
        assert (same ^ mirrored).all()
        flipped += int(mirrored.sum())
    assert 900 < flipped < 1100


def test_cropping_does_not_change_order_or_flips(make_images: MakeImages) -> None:
    images = on_device(make_images())
    trains = [TrainBatches(images, config(crop=crop), seed=0) for crop in ("none", "pad")]
    trains[1]._config = trains[1]._config.model_copy(update={"crop_padding": 0})
    plain, cropped = (list(train.epoch(0)) for train in trains)
    assert torch.equal(pixels(plain), pixels(cropped))


LATER = {"policy": "randaugment", "jitter": 0.4, "erasing": 0.5, "mixup": 0.2, "cutmix": 1.0}


@pytest.mark.parametrize("name", LATER)
def test_each_augmentation_changes_images_and_neither_order_nor_crops(
    make_images: MakeImages, name: str
) -> None:
    images = on_device(make_images(channels=3))
    value = LATER[name]
    plain = list(TrainBatches(images, config(), seed=0).epoch(1))
    changed = TrainBatches(images, config(**{name: value}), seed=0)
    batches = list(changed.epoch(1))
    assert torch.equal(pixels(batches), pixels(list(changed.epoch(1))))
    assert not torch.equal(pixels(batches), pixels(plain))
    for ours, theirs in zip(batches, plain, strict=True):
        assert torch.equal(ours.indices_B, theirs.indices_B)
        assert torch.equal(ours.labels_B, theirs.labels_B)
        assert (ours.other_labels_B is not None) == (name in ("mixup", "cutmix"))
        assert ours.images_BCHW.is_contiguous(memory_format=torch.channels_last)
    # What it leaves alone shows the same crop and flip.
    if name == "erasing":
        same = pixels(batches) == pixels(plain)
        assert torch.equal(pixels(batches)[~same], torch.zeros_like(pixels(batches)[~same]))


def test_all_augmentations_go_along_with_a_resized_crop(make_images: MakeImages) -> None:
    images = on_device(make_images(channels=1))
    train = TrainBatches(images, config(crop="resized", **LATER), seed=0)
    assert torch.isfinite(pixels(list(train.epoch(0)))).all()
    assert torch.equal(pixels(list(train.epoch(2))), pixels(list(train.epoch(2))))


@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_normalised_floats_channels_last(
    make_images: MakeImages, crop: str, channels: int
) -> None:
    train = TrainBatches(on_device(make_images(channels=channels)), config(crop=crop), seed=0)
    for batch in train.epoch(0):
        assert batch.images_BCHW.shape == (8, channels, 8, 8)
        assert batch.images_BCHW.dtype == torch.float32
        assert batch.images_BCHW.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels_B.dtype == batch.indices_B.dtype == torch.int64


def test_black_padding_is_black_before_normalisation(make_images: MakeImages) -> None:
    images = make_images()
    white = image_set(
        np.full((24, 8, 8, 1), 255, dtype=np.uint8), images.labels_N, images.class_names
    )
    mean_C, std_C = np.array([0.5], np.float32), np.array([0.25], np.float32)
    train = TrainBatches(DeviceImages(white, mean_C, std_C, "cpu"), config(), seed=0)
    values = pixels(list(train.epoch(0)))
    torch.testing.assert_close(values.abs(), torch.full_like(values, 2))
    assert values.min() < 0 < values.max()


@pytest.mark.parametrize("batch_size", [1, 7, 24, 1024])
def test_validation_covers_all_images_in_order(make_images: MakeImages, batch_size: int) -> None:
    images = make_images()
    batches = list(val_batches(on_device(images), batch_size))
    assert torch.cat([batch.indices_B for batch in batches]).tolist() == list(range(24))
    labels = torch.cat([batch.labels_B for batch in batches])
    assert labels.tolist() == images.labels_N.tolist()
    torch.testing.assert_close(pixels(batches).mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        pixels(batches).std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0
    )


def test_images_of_a_shared_cache_can_be_trained_on(
    make_images: MakeImages, tmp_path: Path
) -> None:
    cached = cached_image_set(tmp_path, "key", lambda _: make_images())
    one, other = on_device(cached), on_device(make_images())
    assert torch.equal(one.images_NCHW, other.images_NCHW)


def test_writable_images_are_not_copied_on_the_cpu(make_images: MakeImages) -> None:
    images = make_images()
    shared = on_device(images).images_NCHW.numpy()
    assert np.shares_memory(shared, images.images_NCHW)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
def test_a_gpu_sees_what_the_cpu_sees(make_images: MakeImages, crop: str) -> None:
    images = make_images()
    results = []
    for device in ("cpu", "cuda"):
        train = TrainBatches(on_device(images, device), config(crop=crop), seed=0)
        results.append(list(train.epoch(0)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one.indices_B, other.indices_B.cpu())
        torch.testing.assert_close(one.images_BCHW, other.images_BCHW.cpu(), rtol=1e-4, atol=1e-3)
