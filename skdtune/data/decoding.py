"""Decode image files of any kind and size to RGB squares, many at a time.

Shape legend: N images, H height, W width, C channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skdtune.data.cache import Allocate
from skdtune.data.many_files import with_each_file
from skdtune.errors import DataError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""What a file may hold, whatever it is called. Pillow knows other formats too, and hands
PostScript that calls itself a photograph to Ghostscript, a program."""


#: After so many broken files the others are not looked at any more.
_MOST_BROKEN = 1000
#: So many of them are named.
_NAMED = 5


def decode_files(
    folder: Path,
    paths: Sequence[str],
    image_size: int,
    allocate: Allocate | None = None,
    name: str = "NAME",
) -> NDArray[np.uint8]:
    """Decode many files; the bar goes to the standard error stream.

    Args:
        folder: Where the paths start.
        paths: The N files.
        image_size: Side of the squares in pixels.
        allocate: Gives the array that the pixels are written to; default one in memory.
        name: Name of the data set, for messages.

    Returns:
        Pixel values 0 to 255, of shape (N, image_size, image_size, 3).

    Raises:
        DataError: If files are no images, cannot be read or are too large: all of them are
            counted, so that they are mended in one go, and the first are named.
    """
    shape = (len(paths), image_size, image_size, 3)
    images_NHWC = allocate(shape) if allocate else np.empty(shape, dtype=np.uint8)
    broken: dict[int, DataError] = {}

    def decode(row: int) -> None:
        try:
            images_NHWC[row] = decode_file(folder / paths[row], image_size)
        except DataError as error:
            broken[row] = error
            if len(broken) >= _MOST_BROKEN:
                raise _all_of(folder, paths, broken, name) from None

    # Threads share their filters of warnings: what holds for all of them is set here, once.
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with_each_file("decoding", folder, len(paths), decode)
    if broken:
        raise _all_of(folder, paths, broken, name)
    return images_NHWC


def _all_of(
    folder: Path, paths: Sequence[str], broken: Mapping[int, DataError], name: str
) -> DataError:
    """Say of all broken files at once what is wrong."""
    if len(broken) == 1:
        return next(iter(broken.values()))
    first = sorted(broken)[:_NAMED]
    names = ", ".join(paths[row] for row in first)
    more = f" and {len(broken) - len(first):,} more" if len(broken) > len(first) else ""
    at_least = "at least " if len(broken) >= _MOST_BROKEN else ""
    return DataError(
        f"{at_least}{len(broken):,} of {len(paths):,} files in {folder} cannot be decoded: {names}"
        f"{more}; replace them or move them elsewhere (`skdtune data check {name}` says what is "
        "wrong with each)"
    )


def decode_file(path: Path, image_size: int) -> NDArray[np.uint8]:
    """Decode one file: the shorter side is scaled to ``image_size`` and the centre is kept.

    Returns:
        Pixel values 0 to 255, of shape (image_size, image_size, 3).

    Raises:
        DataError: If it is no image, cannot be read or is too large.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            # A large JPEG is decoded at a fraction of its size, yet twice as large as wanted, so
            # that the filter below still does the last step.
            image.draft(None, (2 * image_size, 2 * image_size))
            # Straight to RGB, Pillow warns about palettes whose colours are transparent.
            transparent = image.mode == "P" and "transparency" in image.info
            if image.mode.startswith("I"):
                # Of 16 bits the upper eight; Pillow would make all but the darkest white.
                values_HW = np.asarray(image.convert("I"))
                image_8 = Image.fromarray((values_HW >> 8).clip(0, 255).astype(np.uint8))
            else:
                image_8 = image.convert("RGBA") if transparent else image
            rgb = image_8.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise DataError(
            f"the image {path} claims to have more than {most:.0f} megapixels, which may be meant "
            "to fill the memory: make it smaller, or move it away"
        ) from error
    # A broken file makes Pillow raise nearly anything (SyntaxError, EOFError, struct.error).
    except Exception as error:
        raise DataError(
            f"cannot read the image {path} ({error}): replace this file, or move it elsewhere"
        ) from error
    if rgb.size != (image_size, image_size):
        side = min(rgb.size)
        left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
        box = (left, top, left + side, top + side)
        rgb = rgb.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(rgb)
