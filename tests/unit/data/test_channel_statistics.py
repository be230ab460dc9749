from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from skdtune.data.channel_statistics import channel_statistics
from skdtune.data.images import ImageSet, image_set


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_images", [1, 256, 300])
def test_they_are_those_of_numpy(
    make_images: Callable[..., ImageSet], channels: int, num_images: int
) -> None:
    images = make_images(num_images=num_images, channels=channels)
    mean_C, std_C = channel_statistics(images)
    scaled = images.images_NCHW.astype(np.float64) / 255
    np.testing.assert_allclose(mean_C, scaled.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std_C, scaled.std(axis=(0, 2, 3)), rtol=1e-6)


def test_the_order_of_the_images_does_not_matter(make_images: Callable[..., ImageSet]) -> None:
    images = make_images(num_images=600)
    turned = images.take(np.arange(600)[::-1])
    for first, second in zip(channel_statistics(images), channel_statistics(turned), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_constant_channel_can_be_divided_by() -> None:
    white = np.full((4, 8, 8, 1), 255, dtype=np.uint8)
    mean_C, std_C = channel_statistics(image_set(white, np.zeros(4, dtype=np.int64), ("a", "b")))
    assert mean_C == pytest.approx([1])
    assert std_C == pytest.approx([1])
