"""How a part of any data set is loaded: all that a data set need not do itself.

The wall, the folder of the data, the limit per class, the cache, the checks and the fingerprint
are the same for all. Image files are limited before they are decoded, so that a small study of a
large data set starts soon; arrays are decoded as a whole and limited after.

Shape legend: N images, H height, W width, C channels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np

from skdtune.catalogues.datasets import DATASETS
from skdtune.data.cache import Allocate, cached_image_set
from skdtune.data.checks import check_classes, check_part
from skdtune.data.data_set import (
    ArrayDataSet,
    FileDataSet,
    FileListing,
    PartRequest,
    blamed_on_package,
    data_set,
)
from skdtune.data.images import ImageSet, Split, image_set
from skdtune.data.real_files import each_file_once, require_apart, status_of
from skdtune.data.short_hash import short_hash
from skdtune.data.splits import limit_per_class
from skdtune.data.wall import require_open
from skdtune.describe.data_config import DataConfig


def load_part(config: DataConfig, split: Split, *, data_dir: Path, cache_dir: Path) -> ImageSet:
    """Load the training or the test images of a data set.

    Args:
        config: Data settings; ``max_per_class`` limits the training images only.
        split: Which part.
        data_dir: Where the data lie unless ``config.root`` says otherwise.
        cache_dir: Folder of the image caches.

    Raises:
        DataError: If the data are missing or damaged, or are not what a data set must give.
        TestSplitClosedError: If the test part is asked for outside of a final evaluation;
            nothing was opened.
    """
    request = part_request(config, split, data_dir)
    entry = data_set(config.name)
    if isinstance(entry, FileDataSet):
        listing, _ = kept_files(entry, request, config)
        key = _cache_key(request, _version_of_files(listing, config.image_size))
        return cached_image_set(cache_dir, key, partial(_decoded_files, listing, config))
    images = load_arrays(entry, request, cache_dir)
    limit = _limit(config, split)
    if limit is None:
        return images
    return images.take(limit_per_class(images.labels_N, limit, config.split_seed))


def part_request(config: DataConfig, split: Split, data_dir: Path) -> PartRequest:
    """Say which part of which data set is wanted, if it may be opened.

    Raises:
        TestSplitClosedError: If the test part is asked for outside of a final evaluation.
    """
    require_open(split)
    return PartRequest.of(config, split, data_dir)


def load_arrays(entry: ArrayDataSet, request: PartRequest, cache_dir: Path) -> ImageSet:
    """Load a whole part of a data set that is decoded at once.

    Raises:
        DataError: If the data are missing or damaged, or are not what a data set must give.
    """
    key = _cache_key(request, entry.version(request))
    return cached_image_set(cache_dir, key, partial(_decoded, entry, request))


def kept_files(
    entry: FileDataSet, request: PartRequest, config: DataConfig
) -> tuple[FileListing, FileListing]:
    """List the image files of a part in the order of their rows.

    Returns:
        Those that the limit keeps, and all.

    Raises:
        DataError: If the data are missing, or are not what a data set must give.
    """
    every = listed_files(entry, request)
    labels_N = np.array(every.labels, dtype=np.int64)
    kept_N = limit_per_class(labels_N, _limit(config, request.split), config.split_seed)
    kept = replace(
        every, paths=[every.paths[row] for row in kept_N], labels=labels_N[kept_N].tolist()
    )
    return kept, every


def _limit(config: DataConfig, split: Split) -> int | None:
    return config.max_per_class if split == "train" else None


def listed_files(entry: FileDataSet, request: PartRequest) -> FileListing:
    """List the files of a part in the order of classes and paths, each file once.

    Raises:
        DataError: If the data are missing or damaged, or are not what a data set must give.
    """
    return files_in_order(entry, entry.list_files(request), request)


def files_in_order(entry: FileDataSet, listing: FileListing, request: PartRequest) -> FileListing:
    """Check what a data set has listed, and bring it into the order of classes and paths.

    Raises:
        DataError: If it is not what a data set must give; see :func:`listed_files`.
    """
    check_part(entry, listing, request)
    listing = each_file_once(listing)
    check_classes(listing, request)
    # Whatever order a folder is listed in.
    files = sorted(zip(listing.labels, listing.paths, strict=True))
    return replace(
        listing, paths=[path for _, path in files], labels=[int(label) for label, _ in files]
    )


def require_parts_apart(config: DataConfig, *, data_dir: Path) -> None:
    """Refuse files that a training learns from and is tested on, before it begins.

    Args:
        config: Data settings.
        data_dir: Where the data lie unless ``config.root`` says otherwise.

    Raises:
        DataError: If there is one.
        TestSplitClosedError: Outside of a final evaluation; nothing was opened.
    """
    require_open("test")
    entry = data_set(config.name)
    if isinstance(entry, FileDataSet):
        parts: tuple[Split, Split] = ("train", "test")
        require_apart(
            *(listed_files(entry, PartRequest.of(config, part, data_dir)) for part in parts)
        )


def _decoded(entry: ArrayDataSet, request: PartRequest, _allocate: Allocate) -> ImageSet:
    with blamed_on_package(request.name, "decoded"):
        part = entry.decode(request)
    check_part(entry, part, request)
    return image_set(part.images_NHWC, part.labels_N, tuple(part.class_names))


def _decoded_files(listing: FileListing, config: DataConfig, allocate: Allocate) -> ImageSet:
    # Pillow is not needed where the cache is warm.
    from skdtune.data.decoding import decode_files

    images_NHWC = decode_files(
        listing.folder, listing.paths, config.image_size, allocate, config.name
    )
    return image_set(images_NHWC, np.array(listing.labels), tuple(listing.class_names))


def _version_of_files(listing: FileListing, image_size: int) -> str:
    """Tell what decides the decoded images, without opening them."""
    facts = [f"size {image_size}", *listing.class_names]
    for path, label in zip(listing.paths, listing.labels, strict=True):
        # Joining many paths as text takes a third of the time.
        status = status_of(f"{listing.folder}/{path}")
        facts.append(f"{label} {status.st_size} {status.st_mtime_ns} {path}")
    return short_hash(*facts)


def _cache_key(request: PartRequest, version: str) -> str:
    """Name the cache of a part; another version of a package may decode something else."""
    package = DATASETS.package(request.name)
    # What a package says may be long, or hold what the name of a folder may not.
    words = [short_hash(version), package.name, package.version] if package else [version]
    return quote("-".join([request.name, request.split, *words]), safe="")
