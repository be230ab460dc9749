"""Images on the device for several studies: there once, and never those of another source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skdtune.data.store import DataStore
from skdtune.describe.data_config import DataConfig
from skdtune.errors import OtherDataError

CPU = torch.device("cpu")


def write(root: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for label in ("cat", "dog"):
        folder = root / "train" / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(8):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    write(tmp_path / "pets", seed=0)
    return DataConfig(
        name="imagefolder",
        root=str(tmp_path / "pets"),
        image_size=8,
        batch_size=4,
        val_fraction=0.25,
    )


@pytest.fixture
def store(tmp_path: Path) -> DataStore:
    return DataStore(tmp_path / "data", tmp_path / "cache", CPU)


def test_two_studies_of_one_source_share_what_is_on_the_device(
    config: DataConfig, store: DataStore
) -> None:
    other = store.beside()
    for one, study in ((store, "first"), (other, "second")):
        one.hold(config, "train", study, None)
    assert store.get(config) is other.get(config.model_copy(update={"batch_size": 2}))
    assert store.undivided(config) is other.undivided(config)


def test_images_of_another_source_are_none_of_the_first_study(
    config: DataConfig, store: DataStore, tmp_path: Path
) -> None:
    pinned = store.hold(config, "train", "first", None)
    first = store.get(config)
    write(tmp_path / "pets", seed=1)
    other = store.beside()
    found = other.hold(config, "train", "second", None)
    assert (first.source, other.get(config).source) == (pinned.digest, found.digest)
    assert other.get(config).fingerprint != first.fingerprint
    # The first goes on with what it has, and a third is told what has changed.
    assert store.get(config) is first
    with pytest.raises(OtherDataError, match="study 'third' was begun with other"):
        store.beside().hold(config, "train", "third", pinned)


def test_what_concerns_the_data_of_several_studies_is_news_once(store: DataStore) -> None:
    assert store.is_news("no test images")
    assert not store.beside().is_news("no test images")
    assert store.beside().is_news("12 images are there twice")
