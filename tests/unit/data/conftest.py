from __future__ import annotations

import hashlib
import pickle
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from skdtune.data.images import ImageSet, image_set

_forbidden: list[str] = []


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _forbidden and event in ("open", "os.scandir", "os.listdir"):
        path = str(arguments[0])
        if any(path.startswith(prefix) for prefix in _forbidden):
            raise AssertionError(f"{path} was opened")


sys.addaudithook(_refuse)


@pytest.fixture
def never_opened() -> Callable[[Path], AbstractContextManager[None]]:
    """Make the interpreter itself refuse to open anything at or below a path."""

    @contextmanager
    def refuse(path: Path) -> Iterator[None]:
        _forbidden.append(str(path))
        try:
            yield
        finally:
            _forbidden.remove(str(path))

    return refuse


@pytest.fixture
def make_images() -> Callable[..., ImageSet]:
    def make(
        num_images: int = 24, classes: int = 3, side: int = 8, channels: int = 3, seed: int = 0
    ) -> ImageSet:
        random = np.random.default_rng(seed)
        shape = (num_images, side, side, channels)
        return image_set(
            random.integers(0, 256, shape, dtype=np.uint8),
            np.arange(num_images) % classes,
            tuple(f"class{number}" for number in range(classes)),
        )

    return make


def _batch(key: str, num_images: int, classes: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, (num_images, 3072), dtype=np.uint8)
    labels = [row % classes for row in range(num_images)]
    if key == "fine_labels":
        return {"data": data, key: labels, "coarse_labels": [0] * num_images}
    return {"data": data, key: labels}


@pytest.fixture
def make_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write files in the published format, with checksums that torchvision then believes in."""

    def make(name: str = "cifar10", *, unpacked: bool = True) -> Path:
        source, classes = {"cifar10": (CIFAR10, 10), "cifar100": (CIFAR100, 100)}[name]
        key = "labels" if name == "cifar10" else "fine_labels"
        root = tmp_path / "data"
        folder = root / source.base_folder
        folder.mkdir(parents=True)
        contents: dict[str, dict[str, Any]] = {
            file: _batch(key, 2 * classes, classes, seed)
            for seed, (file, _) in enumerate([*source.train_list, *source.test_list])
        }
        names = [f"name{number}" for number in range(classes)]
        contents[source.meta["filename"]] = {source.meta["key"]: names}
        md5s = {}
        for file, content in contents.items():
            raw = pickle.dumps(content, protocol=2)
            (folder / file).write_bytes(raw)
            md5s[file] = hashlib.md5(raw).hexdigest()
        archive = root / source.filename
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder, source.base_folder)
        for attribute in ("train_list", "test_list"):
            listed = [[file, md5s[file]] for file, _ in getattr(source, attribute)]
            monkeypatch.setattr(source, attribute, listed)
        meta = {**source.meta, "md5": md5s[source.meta["filename"]]}
        monkeypatch.setattr(source, "meta", meta)
        monkeypatch.setattr(source, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
        if unpacked:
            archive.unlink()
        else:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
        return root

    return make


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    def make(*, train: int = 4, test: int = 2, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
        random = np.random.default_rng(0)
        root = tmp_path / "tree"
        for split, number in (("train", train), ("test", test)):
            for name in classes if number else ():
                folder = root / split / name
                folder.mkdir(parents=True)
                for row in range(number):
                    pixels = random.integers(0, 256, (10, 14, 3), dtype=np.uint8)
                    suffix = ("png", "JPG", "jpeg")[row % 3]
                    Image.fromarray(pixels).save(folder / f"{row:03}.{suffix}")
        return root

    return make
