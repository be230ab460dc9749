from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as TF

from skdtune.data.decoding import FORMATS, decode_file, decode_files
from skdtune.errors import DataError


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


def test_of_sixteen_bits_the_upper_eight_are_kept(tmp_path: Path) -> None:
    values_HW = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(values_HW).save(tmp_path / "deep.png")
    expected_HW = (values_HW // 256).astype(np.uint8)
    np.testing.assert_array_equal(
        decode_file(tmp_path / "deep.png", 8), np.stack([expected_HW] * 3, axis=-1)
    )


def test_an_image_of_the_right_size_is_untouched(tmp_path: Path) -> None:
    pixels_NHWC = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    for row in range(3):
        Image.fromarray(pixels_NHWC[row]).save(tmp_path / f"{row}.png")
    paths = ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(decode_files(tmp_path, paths, 8), pixels_NHWC)


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_file_holds_counts_and_not_its_name(name: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (9, 9), (255, 0, 0))
    image.save(tmp_path / "image.jpg", format=name)
    red, green, blue = decode_file(tmp_path / "image.jpg", 8)[4, 4].tolist()
    assert (red > 240, green < 20, blue < 20) == (True, True, True)


def test_a_photograph_of_two_is_read_as_its_first(tmp_path: Path) -> None:
    # Telephones write such files under the name of a JPEG.
    first, second = Image.new("RGB", (9, 9), "white"), Image.new("RGB", (9, 9))
    first.save(tmp_path / "two.jpg", format="MPO", save_all=True, append_images=[second])
    assert decode_file(tmp_path / "two.jpg", 8).min() > 240


def test_postscript_that_calls_itself_a_photograph_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, programs = tmp_path / "trace", tmp_path / "bin"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\necho started >> {trace}\nexit 1\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    # Pillow looks for the program once.
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    for name in ("photo.jpg", "photo.eps"):
        Image.new("RGB", (9, 9)).save(tmp_path / name, format="EPS")
        with pytest.raises(DataError, match=rf"^cannot read the image .*{name} \("):
            decode_files(tmp_path, [name], 8)
    assert not trace.exists()


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_an_image_that_would_fill_the_memory_is_refused(side: int, tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    # A header that claims so many pixels, and hardly any of them.
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels)
    with pytest.raises(DataError) as caught:
        decode_files(tmp_path, ["huge.png"], 8)
    assert str(caught.value) == (
        f"the image {tmp_path / 'huge.png'} claims to have more than 89 megapixels, which may be "
        "meant to fill the memory: make it smaller, or move it away"
    )


def test_all_broken_files_are_named_at_once(tmp_path: Path) -> None:
    """Who mends one of a thousand, and waits for half an hour to hear of the next, gives up."""
    paths = [f"{number}.png" for number in range(12)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(tmp_path / path)
    for path in paths[:7]:
        (tmp_path / path).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        decode_files(tmp_path, paths, 8)
    assert str(caught.value).startswith(
        f"7 of 12 files in {tmp_path} cannot be decoded: 0.png, 1.png, 2.png, 3.png, 4.png and 2 "
        "more; replace them"
    )
