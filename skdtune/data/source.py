"""The source of a part of a data set: its images as they lie on this machine, undivided.

Image files are identified by their bytes, arrays by their pixels, class by class in the order of
the rows. Where a study keeps only some files of each class, only these are read, and all counted.

The digests are kept in the cache: a start that finds them reads no image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from skdtune.data.content_digest import content_digest, pixel_digest
from skdtune.data.data_set import FileDataSet, data_set
from skdtune.data.file_digests import file_digests
from skdtune.data.images import ImageSet, Split
from skdtune.data.kept_json import read_json, write_json
from skdtune.data.loading import kept_files, load_arrays, part_request
from skdtune.data.short_hash import short_hash
from skdtune.describe.data_config import DataConfig
from skdtune.describe.data_source import ClassSource, DataSource, short_digest


@dataclass(frozen=True, kw_only=True)
class FoundSource:
    """A source on this machine, with the files it is made of."""

    source: DataSource
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The digest of each file by its path, by class; empty of a file that a limit leaves out. None
    of arrays."""


def find_source(
    config: DataConfig, split: Split, *, data_dir: Path, cache_dir: Path
) -> FoundSource:
    """Find out what the images of a part come from; files are read if they are new or changed.

    Args:
        config: Data settings.
        split: Which part.
        data_dir: Where the data lie unless ``config.root`` says otherwise.
        cache_dir: Folder of the image caches, and of the digests.

    Raises:
        DataError: If the data are missing or damaged.
        TestSplitClosedError: If the test part is asked for outside of a final evaluation;
            nothing was opened.
    """
    request = part_request(config, split, data_dir)
    entry = data_set(config.name)
    if not isinstance(entry, FileDataSet):
        images = load_arrays(entry, request, cache_dir)
        source = replace(_source_of_arrays(images, cache_dir), folder=str(request.root))
        return FoundSource(source=source)
    kept, every = kept_files(entry, request, config)
    manifest = cache_dir / f"files-{short_hash(request.name, str(kept.folder.absolute()))}.json"
    digests = file_digests(kept.folder, kept.paths, manifest)
    digest_of = dict(zip(kept.paths, digests, strict=True))
    files: dict[str, dict[str, str]] = {name: {} for name in every.class_names}
    for path, label in zip(every.paths, every.labels, strict=True):
        files[every.class_names[label]][path] = digest_of.get(path, "")
    classes = tuple(
        ClassSource(name, len(of_class), short_digest("".join(of_class.values()).encode()))
        for name, of_class in files.items()
    )
    source = DataSource(classes=classes, folder=str(kept.folder))
    return FoundSource(source=source, files=files)


def remember_files(found: FoundSource, cache_dir: Path) -> None:
    """Keep which files a source is made of, so that a later change can be named."""
    path = _memory(found.source, cache_dir)
    if found.files and not path.exists():
        write_json(path, found.files)


def first_changed_file(pinned: DataSource, found: FoundSource, cache_dir: Path) -> str | None:
    """Say what happened to the first file in which a source differs from another one.

    Args:
        pinned: The other one.
        found: What is on this machine.
        cache_dir: Where the files of the other one are remembered, if it was ever here.

    Returns:
        Half a sentence; None if the files of the other one are not known.
    """
    name, _ = pinned.first_difference(found.source)
    remembered = read_json(_memory(pinned, cache_dir))
    before = remembered.get(name) if isinstance(remembered, dict) else None
    now = found.files.get(name, {})
    if not isinstance(before, dict):
        return None
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            return f"{path} is gone"
        if path not in before:
            return f"{path} is new"
        if before[path] != now[path]:
            return f"{path} was changed"
    return None


def _source_of_arrays(images: ImageSet, cache_dir: Path) -> DataSource:
    """Identify the pixels of each class, once for the same images."""
    path = cache_dir / f"pixels-{images.fingerprint}.json"
    try:
        return DataSource.from_plain(read_json(path))
    except ValueError:
        pass
    channels, height, width = images.image_shape
    classes: list[ClassSource] = []
    content: list[tuple[str, bytes]] = []
    for label, name in enumerate(images.class_names):
        rows_N = np.flatnonzero(images.labels_N == label)
        pixels_NHWC = images.read(rows_N)
        digest = hashlib.sha256(repr((height, width, channels)).encode())
        digest.update(pixels_NHWC.data)
        classes.append(ClassSource(name, len(rows_N), digest.hexdigest()[:16]))
        content += [(name, pixel_digest(pixels_HWC)) for pixels_HWC in pixels_NHWC]
    source = DataSource(classes=tuple(classes), content=content_digest(content))
    write_json(path, source.to_plain())
    return source


def _memory(source: DataSource, cache_dir: Path) -> Path:
    return cache_dir / f"source-{source.digest}.json"
