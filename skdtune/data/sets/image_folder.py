"""Image files of one's own, one folder for each class: ``root/train/<class>/*.jpg``.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torchvision.datasets.folder import IMG_EXTENSIONS

from skdtune.data.cache import cached_image_set
from skdtune.data.data_set import DataSet
from skdtune.data.images import ImageSet, Split, image_set, short_hash
from skdtune.data.splits import limit_per_class
from skdtune.data.wall import require_open
from skdtune.describe.config import DataConfig
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

_MAX_THREADS = 8
_FILES_PER_TASK = 64
_MANY_FILES = 10_000


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """The image files of one part, sorted by class and path, before any is opened."""

    folder: Path
    paths: tuple[str, ...]
    """Relative to ``folder``, with forward slashes."""
    labels_N: NDArray[np.int64]
    class_names: tuple[str, ...]

    def take(self, rows_N: NDArray[np.int64]) -> _Listing:
        return _Listing(
            folder=self.folder,
            paths=tuple(self.paths[row] for row in rows_N),
            labels_N=self.labels_N[rows_N],
            class_names=self.class_names,
        )


def load_image_folder(
    config: DataConfig, split: Split, data_dir: Path, cache_dir: Path
) -> ImageSet:
    """Load the training or the test images of a folder tree.

    Images become RGB squares of ``config.image_size``: the shorter side is scaled to it and the
    centre is kept. ``max_per_class`` is applied before anything is decoded, to training images
    only. The folder of the other part is not opened, except that the names of the training
    classes number those of the test.

    Args:
        config: data settings.
        split: which part.
        data_dir: the root unless ``config.root`` names one.
        cache_dir: folder of the image caches.

    Raises:
        DataError: if folders are missing or empty, or an image cannot be read.
        TestSplitClosedError: if the test part is asked for outside of a final evaluation.
    """
    require_open(split)
    root = Path(config.root or data_dir).expanduser()
    listing = _list_part(root, split)
    if split == "train":
        kept_N = limit_per_class(listing.labels_N, config.max_per_class, config.split_seed)
        listing = listing.take(kept_N)
    # What decides the decoded images, without opening them.
    facts = [f"size {config.image_size}", *listing.class_names]
    for path, label in zip(listing.paths, listing.labels_N, strict=True):
        try:
            status = os.stat(listing.folder / path)
        except OSError as error:
            raise DataError(f"cannot read {listing.folder / path} ({error.strerror})") from error
        facts.append(f"{label} {status.st_size} {status.st_mtime_ns} {path}")
    key = f"imagefolder-{split}-{short_hash(*facts)}"
    return cached_image_set(cache_dir, key, lambda: _decode_all(listing, config.image_size))


def _list_part(root: Path, split: Split) -> _Listing:
    class_names = _class_names(root)
    folder = root / split
    if split == "test":
        _check_test_classes(folder, class_names)
    # One image of a class can be tested on, but not both learned from and validated on.
    needed = 2 if split == "train" else 1
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        # Its images lie at any depth; their paths are relative to the folder of the part.
        images: list[str] = []
        for parent, _, files in os.walk(folder / name, followlinks=True):
            below = Path(parent).relative_to(folder).as_posix()
            # macOS leaves files such as ._0001.jpg that are no images.
            images += [
                f"{below}/{file}"
                for file in files
                if file.lower().endswith(IMG_EXTENSIONS) and not file.startswith(".")
            ]
        if len(images) < needed:
            raise DataError(
                f"{folder / name} holds {len(images)} images and needs at least {needed}: add "
                f"images ({', '.join(IMG_EXTENSIONS)}) or remove the folder of this class"
            )
        paths += sorted(images)
        labels += [label] * len(images)
    return _Listing(
        folder=folder,
        paths=tuple(paths),
        labels_N=np.array(labels, dtype=np.int64),
        class_names=class_names,
    )


def _class_names(root: Path) -> tuple[str, ...]:
    layout = f"expected {root}/train/<class>/<image> and {root}/test/<class>/<image>"
    if not root.is_dir():
        raise DataError(f"the folder {root} does not exist: set data.root to your data; {layout}")
    train = root / "train"
    if not train.is_dir():
        present = ", ".join(_folders(root)[:3]) or "no folders"
        raise DataError(f"{root} has no folder train (found {present}): {layout}")
    names = _folders(train)
    if len(names) < 2:
        raise DataError(
            f"{train} has {len(names)} class folders and a classifier needs at least 2: {layout}"
        )
    return tuple(names)


def _check_test_classes(folder: Path, class_names: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise DataError(
            f"{folder} does not exist, so there is nothing to test on: "
            "put test images there as <class>/<image>, with the same classes as in train"
        )
    names = _folders(folder)
    unequal = sorted(set(names) ^ set(class_names))
    if unequal:
        where = folder.name if unequal[0] in names else "train"
        raise DataError(
            f"{folder} and train must have the same class folders, but {unequal[0]} is only in "
            f"{where}: add it to the other one or remove it"
        )


def _folders(parent: Path) -> list[str]:
    try:
        with os.scandir(parent) as entries:
            # Names with a leading dot belong to tools (.ipynb_checkpoints), not to classes.
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot list the folder {parent} ({error.strerror})") from error


def _decode_all(listing: _Listing, image_size: int) -> ImageSet:
    num_images = len(listing.paths)
    images_NHWC = np.empty((num_images, image_size, image_size, 3), dtype=np.uint8)

    def decode_some(start: int) -> int:
        rows = range(start, min(start + _FILES_PER_TASK, num_images))
        for row in rows:
            images_NHWC[row] = _decode(listing.folder / listing.paths[row], image_size)
        return len(rows)

    console = Console(stderr=True)
    if not console.is_interactive and num_images >= _MANY_FILES:
        console.print(f"decoding {num_images} images of {listing.folder}, once", soft_wrap=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_interactive)
    # Threads: Pillow lets other threads run while it reads and decompresses.
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        with bar:
            task = bar.add_task(f"decoding {listing.folder}", total=num_images)
            for done in pool.map(decode_some, range(0, num_images, _FILES_PER_TASK)):
                bar.advance(task, done)
    finally:
        pool.shutdown(cancel_futures=True)
    return image_set(images_NHWC, listing.labels_N, listing.class_names)


def _decode(path: Path, image_size: int) -> NDArray[np.uint8]:
    """Read one image file as an RGB square of shape (image_size, image_size, 3)."""
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
            f"cannot read the image {path} ({error}): replace or remove this file"
        ) from error
    if rgb.size != (image_size, image_size):
        side = min(rgb.size)
        left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
        box = (left, top, left + side, top + side)
        rgb = rgb.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(rgb)


IMAGE_FOLDER = DataSet(
    about=DataFacts(title="a folder of images", needs_root="the folder that holds train/<class>/"),
    load=load_image_folder,
)
