"""A cache of decoded images that all workers of one machine share.

A folder holds ``images.npy`` (uint8, N x H x W x C), ``labels.npy`` (int64, N) and ``meta.json``,
which records the sizes of both. Readers map the images into memory and decode nothing; a worker
then copies its training and validation part to its device.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.filesize import decimal

from skdtune.data.atomic_folder import filled_folder, only_builder
from skdtune.data.images import ImageSet
from skdtune.errors import DataError

#: Gives an array of a shape for uint8 pixels that will be cached, in the cache itself.
Allocate = Callable[[tuple[int, int, int, int]], NDArray[np.uint8]]

_FORMAT = 1
_IMAGES = "images.npy"
_LABELS = "labels.npy"
_META = "meta.json"


def cached_image_set(cache_dir: Path, key: str, build: Callable[[Allocate], ImageSet]) -> ImageSet:
    """Read an image set from the cache, building it first if it is missing or damaged.

    However many processes ask at once, one builds and the others wait for it.

    Args:
        cache_dir: folder of all caches; made when it is missing.
        key: name of the folder below it; must change whenever ``build`` would return something
            else.
        build: makes the image set; called at most once. What it gets gives it room on the disk,
            so that images need not fit in memory; it may ignore that.

    Returns:
        The image set, with its images memory-mapped and read-only.

    Raises:
        DataError: if the disk lacks the room, which is known before anything is decoded, if the
            cache cannot be written, or whatever ``build`` raises.
    """
    folder = cache_dir / key
    # A cache that is there needs no lock, so it may lie on a file system that is read-only.
    cached = _read(folder)
    if cached is not None:
        return cached
    with only_builder(folder, f"the images of {key}"):
        cached = _read(folder)
        if cached is not None:
            return cached
        with filled_folder(folder) as filling:
            fresh = build(partial(_allocate, filling / _IMAGES))
            _write(filling, fresh)
        cached = _read(folder)
    # A disk that does not give back what it took is no reason to lose the images at hand.
    return fresh if cached is None else cached


def _allocate(path: Path, shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Take room for an array on the disk.

    Raises:
        DataError: If there is not as much.
    """
    needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(
            f"the decoded images take {decimal(needed)}, and {path.parent.parent} has "
            f"{decimal(free)} free: free space there, choose another home, a smaller "
            "data.image_size or data.max_per_class"
        )
    images_NHWC = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    # Writing to a map of a file with holes on a full disk would kill the process.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return images_NHWC


def _write(folder: Path, images: ImageSet) -> None:
    images_NHWC = images.images_NCHW.transpose(0, 2, 3, 1)
    if not (folder / _IMAGES).exists():
        _allocate(folder / _IMAGES, images_NHWC.shape)[:] = images_NHWC
    np.save(folder / _LABELS, images.labels_N)
    meta = {
        "format": _FORMAT,
        "fingerprint": images.fingerprint,
        "class_names": images.class_names,
        "shape": images_NHWC.shape,
        "sizes": {name: (folder / name).stat().st_size for name in (_IMAGES, _LABELS)},
    }
    (folder / _META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _read(folder: Path) -> ImageSet | None:
    """Open a cache, or return None if it is missing or is not what its meta.json says."""
    try:
        meta: dict[str, Any] = json.loads((folder / _META).read_text(encoding="utf-8"))
        if meta["format"] != _FORMAT or any(
            (folder / name).stat().st_size != size for name, size in meta["sizes"].items()
        ):
            return None
        images_NHWC = np.load(folder / _IMAGES, mmap_mode="r")
        labels_N = np.load(folder / _LABELS)
        class_names = tuple(str(name) for name in meta["class_names"])
        fingerprint = str(meta["fingerprint"])
    # Whatever a damaged file makes json or numpy raise, the answer is the same: build it again.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
    if images_NHWC.dtype != np.uint8 or list(images_NHWC.shape) != meta["shape"]:
        return None
    if labels_N.dtype != np.int64 or labels_N.shape != images_NHWC.shape[:1]:
        return None
    return ImageSet(
        stored_NCHW=images_NHWC.transpose(0, 3, 1, 2),
        labels_N=labels_N,
        class_names=class_names,
        fingerprint=fingerprint,
    )
