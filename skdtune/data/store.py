"""The images of a worker's trials on its device, loaded once for all that use them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from skdtune.data.batches import DeviceImages
from skdtune.data.catalogue import (
    SearchData,
    load_search_data,
    load_test_images,
    load_training_images,
)
from skdtune.data.channel_statistics import channel_statistics
from skdtune.data.duplicates import Duplicates, count_duplicates
from skdtune.data.images import Split
from skdtune.data.loading import require_parts_apart
from skdtune.data.look import look_for_test
from skdtune.data.mapped_images import place
from skdtune.data.short_hash import short_hash
from skdtune.data.source import find_source, first_changed_file, remember_files
from skdtune.data.wall import require_open
from skdtune.describe.data_config import OF_BATCHES, DataConfig
from skdtune.describe.data_source import DataSource, refusal
from skdtune.errors import OtherDataError

#: Sets of images that stay on the device, of each kind.
_NUM_ON_DEVICE = 2


@dataclass(frozen=True)
class DataOnDevice:
    """What the trials of a study learn from and are judged on, on one device."""

    train: DeviceImages
    val: DeviceImages | None
    """None for a final evaluation, which learns from these images, too."""

    num_classes: int
    fingerprint: str
    class_names: tuple[str, ...] = ()
    source: str = ""
    """Digest of the source that the images are held to; empty if they are held to none."""


@dataclass(frozen=True)
class HeldOut:
    """The test images on one device."""

    images: DeviceImages
    fingerprint: str
    """Identifies them together with the images that are learned from."""


Value = TypeVar("Value")


class _Newest(Generic[Value]):
    """The last few things that were used, made when they are asked for."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Value] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return what is kept under a key, which has all that it depends on."""
        value = self._kept.pop(key) if key in self._kept else make()
        self._kept[key] = value
        for oldest in list(self._kept)[:-_NUM_ON_DEVICE]:
            del self._kept[oldest]
        return value


class DataStore:
    """Loads a data set once for all trials of a worker that use it.

    Args:
        data_dir: Where data sets lie.
        cache_dir: Where decoded images lie.
        device: Where the images go.
    """

    def __init__(self, data_dir: Path, cache_dir: Path, device: torch.device) -> None:
        self._data_dir = data_dir
        self._cache_dir = cache_dir
        self.device = device
        self._learned: _Newest[DataOnDevice] = _Newest()
        self._undivided: _Newest[DataOnDevice] = _Newest()
        self._tested: _Newest[HeldOut] = _Newest()
        self._held: dict[Split, tuple[str, DataSource]] = {}
        self._said: set[str] = set()

    def beside(self) -> DataStore:
        """Return the store of another study: what is on the device for both is there once.

        It is held to nothing yet. Images of one source are never taken for those of another.
        """
        other = DataStore(self._data_dir, self._cache_dir, self.device)
        other._learned, other._undivided = self._learned, self._undivided
        other._tested, other._said = self._tested, self._said
        return other

    def is_news(self, message: str) -> bool:
        """Tell whether this was not said yet of the data of any study beside this one."""
        is_news = message not in self._said
        self._said.add(message)
        return is_news

    def hold(
        self, config: DataConfig, split: Split, study: str, pinned: DataSource | None
    ) -> DataSource:
        """Look at what the images of a part come from, and load none of another source after.

        Args:
            config: Data settings of the study.
            split: Which part.
            study: Name of the study, for the error.
            pinned: What the study was begun with; None before its first trial was taken.

        Raises:
            OtherDataError: If it was begun with other images.
            DataError: If the data are missing or damaged.
            TestSplitClosedError: If it is the test part, outside of a final evaluation.
        """
        found = find_source(config, split, data_dir=self._data_dir, cache_dir=self._cache_dir)
        if pinned is not None and found.source != pinned:
            file = first_changed_file(pinned, found, self._cache_dir)
            raise OtherDataError(refusal(study, split, pinned, found.source, file))
        remember_files(found, self._cache_dir)
        self._held[split] = (study, found.source)
        return found.source

    def get(self, config: DataConfig) -> DataOnDevice:
        """Return the images of some settings; batches and augmentation do not matter to them."""
        config = _without_batching(config)
        return self._learned.get(self._key(config, "train"), lambda: self._load(config))

    def undivided(self, config: DataConfig) -> DataOnDevice:
        """Return the training and the validation images as one, to learn from all of them."""
        config = _without_batching(config)
        return self._undivided.get(
            self._key(config, "train"), lambda: self._load_undivided(config)
        )

    def test(self, config: DataConfig) -> HeldOut:
        """Return the test images, normalised as the undivided training images are.

        Raises:
            TestSplitClosedError: Outside of a final evaluation.
        """
        require_open("test")
        config = _without_batching(config)
        key = self._key(config, "train", "test")
        return self._tested.get(key, lambda: self._load_test(config))

    def decode_test(self, config: DataConfig) -> None:
        """Decode the test images and no more: a training whose images are missing is in vain.

        Raises:
            DataError: If they are missing, or one is learned from too.
            TestSplitClosedError: Outside of a final evaluation.
        """
        load_test_images(config, data_dir=self._data_dir, cache_dir=self._cache_dir)
        require_parts_apart(config, data_dir=self._data_dir)

    def duplicates(self, config: DataConfig, *, is_tested: bool) -> Duplicates:
        """Count identical images, once on a machine; see :func:`count_duplicates`.

        Raises:
            TestSplitClosedError: If the test images are asked for outside of a final evaluation.
        """
        folders = {"data_dir": self._data_dir, "cache_dir": self._cache_dir}
        return count_duplicates(config, is_tested=is_tested, **folders)

    def look_for_test(self, config: DataConfig) -> str:
        """Say that there are no test images here; nothing if there are."""
        return look_for_test(config, data_dir=self._data_dir)

    def _load(self, config: DataConfig) -> DataOnDevice:
        data: SearchData = load_search_data(
            config, data_dir=self._data_dir, cache_dir=self._cache_dir
        )
        train, val = (
            place(images, data.mean_C, data.std_C, self.device)
            for images in (data.train, data.val)
        )
        names, source = data.train.class_names, self._require_held(config, "train")
        return DataOnDevice(train, val, data.train.num_classes, data.fingerprint, names, source)

    def _load_undivided(self, config: DataConfig) -> DataOnDevice:
        full = load_training_images(config, data_dir=self._data_dir, cache_dir=self._cache_dir)
        train = place(full, *channel_statistics(full), self.device)
        names, source = full.class_names, self._require_held(config, "train")
        return DataOnDevice(train, None, full.num_classes, full.fingerprint, names, source)

    def _load_test(self, config: DataConfig) -> HeldOut:
        data = self.undivided(config)
        test = load_test_images(config, data_dir=self._data_dir, cache_dir=self._cache_dir)
        self._require_held(config, "test")
        mean_C, std_C = (x_C.cpu().numpy() for x_C in (data.train.mean_C, data.train.std_C))
        fingerprint = short_hash(data.fingerprint, test.fingerprint)
        return HeldOut(place(test, mean_C, std_C, self.device), fingerprint)

    def _key(self, config: DataConfig, *splits: Split) -> Hashable:
        held = [self._held[split][1].digest if split in self._held else "" for split in splits]
        return config, *held

    def _require_held(self, config: DataConfig, split: Split) -> str:
        """Refuse images that were loaded after the data had changed; return their digest."""
        if split not in self._held:
            return ""
        study, held = self._held[split]
        return self.hold(config, split, study, held).digest


def _without_batching(config: DataConfig) -> DataConfig:
    return DataConfig(**config.model_dump(exclude=set(OF_BATCHES)))
