from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skdtune.data.images import ImageSet, image_set


def test_the_image_set_describes_itself(make_images: Callable[..., ImageSet]) -> None:
    images = make_images(num_images=24, classes=3, side=8, channels=1)
    assert len(images) == 24
    assert images.num_classes == 3
    assert images.image_shape == (1, 8, 8)
    assert images.images_NCHW.shape == (24, 1, 8, 8)


def test_the_fingerprint_follows_the_content_only(make_images: Callable[..., ImageSet]) -> None:
    images = make_images()
    assert make_images().fingerprint == images.fingerprint
    assert make_images(seed=1).fingerprint != images.fingerprint
    images_NHWC = images.images_NCHW.transpose(0, 2, 3, 1)
    other_labels = image_set(images_NHWC, images.labels_N[::-1], images.class_names)
    other_names = image_set(images_NHWC, images.labels_N, ("a", "b", "c"))
    assert len({images.fingerprint, other_labels.fingerprint, other_names.fingerprint}) == 3


def test_take_names_rows_and_changes_the_fingerprint(
    make_images: Callable[..., ImageSet],
) -> None:
    images = make_images()
    rows_N = np.array([5, 0, 7])
    taken = images.take(rows_N)
    taken_NHWC = taken.read(slice(None))
    np.testing.assert_array_equal(taken_NHWC.transpose(0, 3, 1, 2), images.images_NCHW[rows_N])
    np.testing.assert_array_equal(taken.take(np.array([2, 1])).read(slice(1, 2)), taken_NHWC[1:2])
    np.testing.assert_array_equal(taken.labels_N, images.labels_N[rows_N])
    assert len(taken) == 3
    assert not np.shares_memory(taken_NHWC, images.images_NCHW)
    assert not np.shares_memory(images.read(slice(0, 2)), images.images_NCHW)
    assert taken_NHWC.flags.c_contiguous
    assert taken.fingerprint != images.fingerprint
    assert taken.fingerprint != images.take(rows_N[::-1]).fingerprint
