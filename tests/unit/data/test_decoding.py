from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as TF

from skdtune.data.decoding import decode_file, decode_files


@pytest.mark.parametrize("shape", [(16, 24, 3), (24, 16, 3), (4, 6, 3)])
def test_the_centre_is_scaled_as_torchvision_does(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "image.png")
    expected = np.asarray(TF.center_crop(TF.resize(image, 8), [8, 8]))
    result = decode_file(tmp_path / "image.png", 8)
    # Pillow rounds to whole values between its two passes.
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_a_large_jpeg_decoded_small_looks_the_same(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 400)[:, None, None] * np.ones((1, 640, 3))
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "big.jpg", quality=95)
    square_HWC = decode_file(tmp_path / "big.jpg", 32)
    expected_H = (np.arange(32) + 0.5) / 32 * 255
    assert np.abs(square_HWC[:, 16, 0] - expected_H).max() < 4


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA", "transparent"])
def test_every_kind_of_image_becomes_rgb(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (9, 9), (255, 0, 0)).convert("P" if mode == "transparent" else mode)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    if mode == "transparent":
        image.info["transparency"] = bytes(256)
    image.save(path)
    assert decode_file(path, 8).shape == (8, 8, 3)


def test_an_image_of_the_right_size_is_untouched(tmp_path: Path) -> None:
    pixels_NHWC = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    for row in range(3):
        Image.fromarray(pixels_NHWC[row]).save(tmp_path / f"{row}.png")
    paths = ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(decode_files(tmp_path, paths, 8), pixels_NHWC)
