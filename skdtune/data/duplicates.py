"""How many images of a study are identical: learned from and judged on, or of two classes.

Nothing is left out: published numbers are of published data sets, twins included (CIFAR-100 has
some). It is counted where somebody prepares the data, kept beside the decoded images, and said.

Shape legend: N images, T training, V validation, E test images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skdtune.data.catalogue import load_test_images, load_training_images
from skdtune.data.images import ImageSet
from skdtune.data.kept_json import read_json, write_json
from skdtune.data.short_hash import short_hash
from skdtune.data.splits import stratified_split
from skdtune.describe.data_config import DataConfig


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Groups of identical images, pixel by pixel as they are decoded."""

    judged_on: str
    """What the images are called that are judged on: validation or test."""

    num_images: int
    """Images that were compared."""

    num_groups: int
    """Groups of two images or more that are identical."""

    num_leaked: int
    """Images that are judged on and learned from as well."""

    num_judged: int
    """Images that are judged on."""

    num_of_two_classes: int
    """Groups with more than one label."""

    classes: tuple[str, ...] = ()
    """The labels of the first such group."""

    def describe(self, name: str) -> str:
        """Say in one line what was found; empty where no two images are identical.

        Args:
            name: Name of the data set.
        """
        if not self.num_groups:
            return ""
        groups = "1 group" if self.num_groups == 1 else f"{self.num_groups:,} groups"
        parts = [f"{name}: {groups} of identical images among {self.num_images:,}"]
        if self.num_leaked:
            of = f"{self.num_leaked:,} of {self.num_judged:,} {self.judged_on} images"
            parts.append(f"{of} {'is' if self.num_leaked == 1 else 'are'} learned from too")
        if self.num_of_two_classes:
            first = " and ".join(map(repr, self.classes[:2]))
            parts.append(f"{self.num_of_two_classes:,} with different labels (first: {first})")
        return "; ".join(parts)


def count_duplicates(
    config: DataConfig, *, is_tested: bool, data_dir: Path, cache_dir: Path
) -> Duplicates:
    """Count the identical images of a study, or read what was counted before on this machine.

    Args:
        config: Data settings.
        is_tested: Compare training and validation images with the test images, which only a final
            evaluation may look at; else training images with validation images.
        data_dir: Where the data lie unless ``config.root`` says otherwise.
        cache_dir: Folder of the image caches.

    Raises:
        DataError: If the data are missing or damaged.
        TestSplitClosedError: If this is no final evaluation, and the test images are asked for.
    """
    full = load_training_images(config, data_dir=data_dir, cache_dir=cache_dir)
    if is_tested:
        test = load_test_images(config, data_dir=data_dir, cache_dir=cache_dir)
        key = short_hash("test", full.fingerprint, test.fingerprint)
    else:
        _, val_N = stratified_split(full.labels_N, config.val_fraction, config.split_seed)
        key = short_hash("validation", full.fingerprint, val_N.astype("<i8").tobytes())
    kept = cache_dir / f"duplicates-{key}.json"
    if (known := _read(kept)) is not None:
        return known
    if is_tested:
        is_judged_N = np.arange(len(full) + len(test)) >= len(full)
        counted = _count("test", [full, test], is_judged_N)
    else:
        is_judged_N = np.isin(np.arange(len(full)), val_N)
        counted = _count("validation", [full], is_judged_N)
    write_json(kept, asdict(counted))
    return counted


def _count(
    judged_on: str, parts: Sequence[ImageSet], is_judged_N: NDArray[np.bool_]
) -> Duplicates:
    digests_N = np.concatenate([image_digests(part) for part in parts])
    labels_N = np.concatenate([part.labels_N for part in parts])
    _, group_N, sizes = np.unique(digests_N, return_inverse=True, return_counts=True)
    # Only rows of a group of two or more; those of one group stand together.
    rows = np.flatnonzero(sizes[group_N] > 1)
    rows = rows[np.argsort(group_N[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(group_N[rows], prepend=-1))
    groups = np.split(rows, starts[1:]) if len(rows) else []
    # In the order in which their first images stand.
    groups.sort(key=lambda group: int(group[0]))
    num_leaked = sum(
        int(is_judged_N[group].sum()) for group in groups if not is_judged_N[group].all()
    )
    of_two = [group for group in groups if len(np.unique(labels_N[group])) > 1]
    names = parts[0].class_names
    return Duplicates(
        judged_on=judged_on,
        num_images=len(digests_N),
        num_groups=len(groups),
        num_leaked=num_leaked,
        num_judged=int(is_judged_N.sum()),
        num_of_two_classes=len(of_two),
        classes=tuple(names[label] for label in np.unique(labels_N[of_two[0]])) if of_two else (),
    )


def image_digests(images: ImageSet) -> NDArray[np.void]:
    """Return a digest of each image's pixels: equal for identical images, and for no others.

    Returns:
        Sixteen raw bytes each, of shape (N,).
    """
    shape = repr(images.image_shape).encode()
    digests = bytearray()
    for row in range(len(images)):
        pixels = images.read(slice(row, row + 1))
        digests += hashlib.blake2b(pixels.data, digest_size=16, key=shape).digest()
    return np.frombuffer(bytes(digests), dtype="V16")


def _read(path: Path) -> Duplicates | None:
    """Read what was counted before; None if it was not, or cannot be understood."""
    content = read_json(path)
    try:
        return Duplicates(**{**content, "classes": tuple(map(str, content["classes"]))})
    except (TypeError, KeyError):
        return None
