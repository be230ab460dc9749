"""CIFAR-10 and CIFAR-100 in the form in which their authors publish them.

Folder names, file names, checksums and addresses are those of torchvision's data sets. The files
are opened here, because torchvision reads the test images to check them even when only the
training images are asked for.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from skdtune.data.atomic_folder import filled_folder, only_builder
from skdtune.data.cache import cached_image_set
from skdtune.data.data_set import DataSet
from skdtune.data.download import fetch, file_md5
from skdtune.data.images import ImageSet, Split, image_set, short_hash
from skdtune.data.splits import limit_per_class
from skdtune.data.wall import require_open
from skdtune.describe.config import DataConfig
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

Source = type[CIFAR10]

_SOURCES: dict[str, Source] = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def load_cifar_images(
    config: DataConfig, split: Split, data_dir: Path, cache_dir: Path
) -> ImageSet:
    """Load the training or the test images of CIFAR-10 or CIFAR-100.

    Only the files of that part are opened. A folder that is missing is unpacked from an archive
    beside it, or downloaded if ``config.download`` allows it.

    Args:
        config: data settings; ``max_per_class`` limits the training images.
        split: which part.
        data_dir: where the data lie unless ``config.root`` says otherwise.
        cache_dir: folder of the image caches.

    Raises:
        DataError: if the data are missing and cannot be fetched, or a file is damaged.
        TestSplitClosedError: if the test part is asked for outside of a final evaluation.
    """
    require_open(split)
    source = _SOURCES[config.name]
    root = Path(config.root or data_dir).expanduser()
    key = f"{config.name}-{split}-{short_hash(repr(_files(source, split)))}"
    images = cached_image_set(cache_dir, key, lambda: _build(source, split, root, config))
    if split == "test" or config.max_per_class is None:
        return images
    return images.take(limit_per_class(images.labels_N, config.max_per_class, config.split_seed))


def _files(source: Source, split: Split) -> list[tuple[str, str]]:
    """List the image files of one part, each with its checksum."""
    listed = source.train_list if split == "train" else source.test_list
    return [(name, md5) for name, md5 in listed]


def _build(source: Source, split: Split, root: Path, config: DataConfig) -> ImageSet:
    folder = root / source.base_folder
    if not folder.is_dir():
        with only_builder(folder, f"the data of {config.name}"):
            if not folder.is_dir():
                _provide(source, root, config)
    files = [*_files(source, split), (source.meta["filename"], source.meta["md5"])]
    for name, md5 in files:
        _check(folder / name, md5, source)
    contents: list[dict[str, Any]] = []
    for name, _ in files:
        # The checksum was compared, so this is the published file and no stranger's program.
        with (folder / name).open("rb") as file:
            contents.append(pickle.load(file, encoding="latin1"))
    *batches, meta = contents
    images_NCHW = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    # CIFAR-100 has two sets of labels; the fine ones are its hundred classes.
    kind = "fine_labels" if "fine_labels" in batches[0] else "labels"
    labels = [label for batch in batches for label in batch[kind]]
    return image_set(
        np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)),
        np.array(labels, dtype=np.int64),
        tuple(meta[source.meta["key"]]),
    )


def _provide(source: Source, root: Path, config: DataConfig) -> None:
    """Unpack the archive, which the user put there or the network gives."""
    archive = root / source.filename
    by_hand = f"get {source.url}, put it into {root} and run again, or set data.root"
    if archive.exists():
        if file_md5(archive) != source.tgz_md5:
            raise DataError(
                f"{archive} is damaged or incomplete (its md5 is not {source.tgz_md5}): "
                f"delete it, then {by_hand}"
            )
        _unpack(archive, source, root)
    elif not config.download:
        raise DataError(
            f"{config.name} is missing: no folder {source.base_folder} and no file "
            f"{source.filename} in {root}: {by_hand}, or set data.download to true"
        )
    else:
        try:
            _unpack(None, source, root)
        except DataError as error:
            raise DataError(
                f"{config.name} is missing: no folder {source.base_folder} and no file "
                f"{source.filename} in {root}, and {error}: {by_hand}"
            ) from error


def _unpack(archive: Path | None, source: Source, root: Path) -> None:
    """Put the folder of the data in place as a whole, from an archive or from the network."""
    with filled_folder(root / source.base_folder) as filling:
        fetched = filling / source.filename
        if archive is None:
            fetch(source.url, fetched, source.tgz_md5)
        unpacked = filling / "unpacked"
        with tarfile.open(archive or fetched, "r:gz") as tar:
            # An attribute, not an argument: releases of Python without filters ignore it.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(unpacked)
        for path in (unpacked / source.base_folder).iterdir():
            path.rename(filling / path.name)
        shutil.rmtree(unpacked)
        fetched.unlink(missing_ok=True)


def _check(path: Path, md5: str, source: Source) -> None:
    """Refuse a file that is not the published one, before anything in it is believed."""
    try:
        wrong = None if file_md5(path) == md5 else f"is damaged or incomplete (md5 is not {md5})"
    except OSError as error:
        wrong = f"cannot be read ({error.strerror})"
    if wrong:
        raise DataError(
            f"{path} {wrong}: delete the folder {path.parent} and run again to have it fetched, "
            f"or copy it again from {source.url}"
        )


CIFAR_10 = DataSet(about=DataFacts(title="CIFAR-10", num_classes=10), load=load_cifar_images)
CIFAR_100 = DataSet(about=DataFacts(title="CIFAR-100", num_classes=100), load=load_cifar_images)
