from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import RandomResizedCrop, v2
from torchvision.transforms import functional as TF
from torchvision.transforms.v2 import functional as V2F

from skdtune.data.augmentation import erase, flip, jitter, mix, normalise, pad_crop, resized_crop
from skdtune.data.draws import (
    draw_boxes,
    draw_erasures,
    draw_factors,
    draw_flips,
    draw_mixings,
    draw_shifts,
    epoch_generator,
)

LAST = torch.channels_last

batches = st.builds(
    lambda seed, batch, channels, height, width: torch.randint(
        0,
        256,
        (batch, channels, height, width),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed),
    ).contiguous(memory_format=LAST),
    st.integers(0, 999),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.integers(4, 12),
    st.integers(4, 12),
)
slow = settings(deadline=None, max_examples=40)


@slow
@given(batches, st.integers(1, 5), st.integers(0, 99))
def test_pad_crop_is_that_of_torchvision(images_BCHW: Tensor, padding: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    top_B, left_B = draw_shifts(len(images_BCHW), padding, generator).unbind(1)
    result = pad_crop(images_BCHW, top_B, left_B, padding)
    height, width = images_BCHW.shape[2:]
    expected = [
        TF.crop(TF.pad(image, [padding]), int(top), int(left), height, width)
        for image, top, left in zip(images_BCHW, top_B, left_B, strict=True)
    ]
    assert torch.equal(result, torch.stack(expected))
    assert result.is_contiguous(memory_format=LAST)


@slow
@given(batches, st.integers(0, 99))
def test_flip_is_that_of_torchvision(images_BCHW: Tensor, seed: int) -> None:
    flip_B = draw_flips(len(images_BCHW), torch.Generator().manual_seed(seed))
    expected = [
        TF.hflip(image) if mirrored else image
        for image, mirrored in zip(images_BCHW, flip_B, strict=True)
    ]
    result = flip(images_BCHW, flip_B)
    assert torch.equal(result, torch.stack(expected))
    assert result.is_contiguous(memory_format=LAST)


@slow
@given(batches, st.integers(0, 99))
def test_resized_crop_is_that_of_torchvision(images_BCHW: Tensor, seed: int) -> None:
    height, width = images_BCHW.shape[2:]
    generator = torch.Generator().manual_seed(seed)
    boxes_B4 = draw_boxes(len(images_BCHW), height, width, generator)
    result = resized_crop(images_BCHW, *boxes_B4.unbind(1))
    expected = [
        TF.resized_crop(image.float(), *box.tolist(), [height, width], antialias=True)
        for image, box in zip(images_BCHW, boxes_B4, strict=True)
    ]
    torch.testing.assert_close(result, torch.stack(expected), rtol=0, atol=5e-3)
    assert result.is_contiguous(memory_format=LAST)


def test_resized_crop_sees_nothing_outside_its_box() -> None:
    images_BCHW = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    images_BCHW[:, :, 2:5, 3:4] = 7
    box = [torch.tensor([number]) for number in (2, 3, 3, 1)]
    assert torch.allclose(resized_crop(images_BCHW, *box), torch.tensor(7.0), atol=1e-3)


@slow
@given(batches)
def test_normalise_is_that_of_torchvision(images_BCHW: Tensor) -> None:
    mean_C = torch.tensor([0.4, 0.5, 0.6])[: images_BCHW.shape[1]]
    std_C = torch.tensor([0.2, 0.3, 0.25])[: images_BCHW.shape[1]]
    expected = TF.normalize(images_BCHW.float() / 255, mean_C.tolist(), std_C.tolist())
    for raw_BCHW in (images_BCHW, images_BCHW.float()):
        result = normalise(raw_BCHW, mean_C, std_C)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
        assert result.dtype == torch.float32
        assert result.is_contiguous(memory_format=LAST)


@slow
@given(st.integers(4, 64), st.integers(4, 64), st.integers(0, 99))
def test_boxes_lie_inside_the_image(height: int, width: int, seed: int) -> None:
    boxes_N4 = draw_boxes(50, height, width, torch.Generator().manual_seed(seed))
    top_N, left_N, height_N, width_N = boxes_N4.unbind(1)
    assert (top_N >= 0).all()
    assert (left_N >= 0).all()
    assert (height_N >= 1).all()
    assert (width_N >= 1).all()
    assert (top_N + height_N <= height).all()
    assert (left_N + width_N <= width).all()


def test_boxes_are_distributed_as_torchvision_draws_them() -> None:
    ours = draw_boxes(20_000, 32, 32, torch.Generator().manual_seed(0)).double()
    image = torch.zeros(3, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.tensor(
            [RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(5000)],
            dtype=torch.float64,
        )
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0.05, atol=0.1)
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.05, atol=0.1)


@pytest.mark.parametrize(("height", "width"), [(4, 64), (64, 4)])
def test_an_image_no_box_fits_into_gives_its_middle(height: int, width: int) -> None:
    boxes_N4 = draw_boxes(200, height, width, torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        # Areas no box can have, so that torchvision falls back to the middle, too.
        middle = RandomResizedCrop.get_params(
            torch.zeros(3, height, width), [50, 60], [3 / 4, 4 / 3]
        )
    assert list(middle) in boxes_N4.tolist()


def test_the_shifts_reach_every_place() -> None:
    shifts_N2 = draw_shifts(2000, 2, torch.Generator().manual_seed(0))
    assert sorted(set(map(tuple, shifts_N2.tolist()))) == [
        (y, x) for y in range(5) for x in range(5)
    ]


def test_chance_depends_on_seed_and_epoch() -> None:
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2**63 - 1, 0)]
    drawn = {torch.rand(1, generator=epoch_generator(*pair)).item() for pair in pairs}
    assert len(drawn) == len(pairs)
    again = {torch.rand(1, generator=epoch_generator(*pair)).item() for pair in pairs}
    assert drawn == again


def byte_images(channels: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (6, channels, 9, 7)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_that_of_torchvision(channels: int) -> None:
    raw_BCHW = byte_images(channels)
    factors_B3 = draw_factors(6, 0.8, torch.Generator().manual_seed(1))
    assert factors_B3.min() >= 0.2
    assert factors_B3.max() <= 1.8
    expected = []
    for image, factors in zip(raw_BCHW, factors_B3.tolist(), strict=True):
        image = V2F.adjust_brightness(image, factors[0])
        image = V2F.adjust_contrast(image, factors[1])
        expected.append(V2F.adjust_saturation(image, factors[2]))
    difference = jitter(raw_BCHW, factors_B3).int() - torch.stack(expected).int()
    # The factors are float32 here and float64 there: a value may be cut off at the next number.
    assert difference.abs().max() <= 1
    assert difference.count_nonzero() <= 0.01 * difference.numel()
    assert torch.equal(jitter(raw_BCHW, torch.ones(6, 3)), raw_BCHW)


def test_erase_is_that_of_torchvision() -> None:
    images_BCHW = torch.randn(200, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    boxes_B4 = draw_erasures(200, 9, 7, 0.5, torch.Generator().manual_seed(1))
    erased = erase(images_BCHW, boxes_B4)
    zero = torch.zeros(3, 1, 1)
    expected = [
        V2F.erase(image, top, left, height, width, zero) if height and width else image
        for image, (top, left, height, width) in zip(images_BCHW, boxes_B4.tolist(), strict=True)
    ]
    assert torch.equal(erased, torch.stack(expected))
    areas = (boxes_B4[:, 2] * boxes_B4[:, 3]).double() / 63
    assert 70 < int((areas > 0).sum()) < 130
    assert areas.max() < 0.45


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_is_that_of_torchvision(kind: str) -> None:
    images_BCHW = torch.randn(5, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    labels_B = torch.arange(5)
    alphas = {"mixup": 0.0, "cutmix": 0.0, kind: 1.0}
    drawn = draw_mixings(20, 9, 7, **alphas, generator=torch.Generator().manual_seed(2))
    assert len({mixing.share for mixing in drawn}) > 10
    for mixing in drawn:
        parameters = {"labels": labels_B, "batch_size": 5}
        if mixing.box is None:
            theirs: v2.Transform = v2.MixUp(num_classes=5)
            parameters |= {"lam": mixing.share}
        else:
            theirs = v2.CutMix(num_classes=5)
            top, left, bottom, right = mixing.box
            parameters |= {"box": (left, top, right, bottom), "lam_adjusted": mixing.share}
        expected = theirs.transform(images_BCHW, parameters)
        assert torch.allclose(mix(images_BCHW, mixing), expected, atol=1e-6)
        weights = theirs.transform(labels_B, parameters)
        rows = torch.arange(5)
        ours = torch.zeros(5, 5)
        ours[rows, labels_B] += mixing.share
        ours[rows, labels_B.roll(1, 0)] += 1 - mixing.share
        assert torch.allclose(ours, weights)


def test_both_mixings_share_the_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = draw_mixings(400, 9, 7, mixup=0.2, cutmix=1.0, generator=generator)
    num_cut = sum(mixing.box is not None for mixing in drawn)
    assert 150 < num_cut < 250
    assert all(0 <= mixing.share <= 1 for mixing in drawn)
