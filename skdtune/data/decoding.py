"""Decode image files of any kind and size to RGB squares, many at a time.

Shape legend: N images, H height, W width, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from skdtune.errors import DataError

_MAX_THREADS = 8
_FILES_PER_TASK = 64
_MANY_FILES = 10_000


def decode_files(folder: Path, paths: Sequence[str], image_size: int) -> NDArray[np.uint8]:
    """Decode many files; the bar goes to the standard error stream.

    Args:
        folder: Where the paths start.
        paths: The N files.
        image_size: Side of the squares in pixels.

    Returns:
        Pixel values 0 to 255, of shape (N, image_size, image_size, 3).

    Raises:
        DataError: If a file is no image or cannot be read.
    """
    num_images = len(paths)
    images_NHWC = np.empty((num_images, image_size, image_size, 3), dtype=np.uint8)

    def decode_some(start: int) -> int:
        rows = range(start, min(start + _FILES_PER_TASK, num_images))
        for row in rows:
            images_NHWC[row] = decode_file(folder / paths[row], image_size)
        return len(rows)

    console = Console(stderr=True)
    if not console.is_interactive and num_images >= _MANY_FILES:
        console.print(f"decoding {num_images} images of {folder}, once", soft_wrap=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_interactive)
    # Threads: Pillow lets other threads run while it reads and decompresses.
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        with bar:
            task = bar.add_task(f"decoding {folder}", total=num_images)
            for done in pool.map(decode_some, range(0, num_images, _FILES_PER_TASK)):
                bar.advance(task, done)
    finally:
        pool.shutdown(cancel_futures=True)
    return images_NHWC


def decode_file(path: Path, image_size: int) -> NDArray[np.uint8]:
    """Decode one file: the shorter side is scaled to ``image_size`` and the centre is kept.

    Returns:
        Pixel values 0 to 255, of shape (image_size, image_size, 3).

    Raises:
        DataError: If it is no image or cannot be read.
    """
    try:
        with Image.open(path) as image:
            # A large JPEG is decoded at a fraction of its size, yet twice as large as wanted, so
            # that the filter below still does the last step.
            image.draft(None, (2 * image_size, 2 * image_size))
            # Straight to RGB, Pillow warns about palettes whose colours are transparent.
            transparent = image.mode == "P" and "transparency" in image.info
            rgb = (image.convert("RGBA") if transparent else image).convert("RGB")
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
