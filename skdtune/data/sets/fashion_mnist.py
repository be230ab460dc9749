"""Fashion-MNIST, pictures of clothes, in the form in which its authors publish it.

Source: Xiao, Rasul and Vollgraf, Fashion-MNIST (arXiv 1708.07747),
https://github.com/zalandoresearch/fashion-mnist; checksums and folders by torchvision.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skdtune.data.archive import PublishedFile
from skdtune.data.data_set import ArrayDataSet, DecodedPart, Glance, PartRequest
from skdtune.data.listed_files import read_list
from skdtune.data.short_hash import short_hash
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_HEADS = {2051: 16, 2049: 8}
"""Bytes before the values, by the number that a file of images or of labels begins with."""


@dataclass(frozen=True, kw_only=True)
class FashionMnist(ArrayDataSet):
    """Only the files of the part that is asked for are opened."""

    files: Mapping[str, tuple[PublishedFile, PublishedFile]]
    """Images and labels of each part."""

    def version(self, request: PartRequest) -> str:
        """Name the part by the checksums of its files."""
        return short_hash(*(str(file.md5) for file in self.files[request.split]))

    def glance(self, request: PartRequest) -> Glance:
        """Look for the four files."""
        missing, missing_test = (
            next(filter(None, (file.missing(request) for file in self.files[part])), "")
            for part in ("train", "test")
        )
        if missing:
            return Glance(missing="" if request.download else missing)
        return Glance(missing_test="" if request.download else missing_test)

    def decode(self, request: PartRequest) -> DecodedPart:
        """Read the files after their checksums were compared."""
        import numpy as np

        paths = []
        for file in self.files[request.split]:
            paths.append(file.provided(request))
            file.check(paths[-1])
        pixels, labels = (read_list(path, _read_idx) for path in paths)
        _, height, width = self.about.image_shape or (1, 28, 28)
        if len(pixels) != len(labels) * height * width:
            raise DataError(f"{paths[0]} holds other images than {paths[1]} has labels")
        return DecodedPart(
            images_NHWC=pixels.reshape(-1, height, width, 1).copy(),
            labels_N=labels.astype(np.int64),
            class_names=(
                "T-shirt/top",
                "trouser",
                "pullover",
                "dress",
                "coat",
                "sandal",
                "shirt",
                "sneaker",
                "bag",
                "ankle boot",
            ),
        )


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Read the values of a compressed IDX file, without its head."""
    import numpy as np

    with gzip.open(path) as file:
        content = file.read()
    return np.frombuffer(content[_HEADS[int.from_bytes(content[:4], "big")] :], dtype=np.uint8)


def _file(name: str, md5: str) -> PublishedFile:
    return PublishedFile(url=f"{_ADDRESS}/{name}", filename=f"FashionMNIST/raw/{name}", md5=md5)


FASHION_MNIST = FashionMnist(
    about=DataFacts(
        title="Fashion-MNIST: grey 28 x 28 pictures of ten kinds of clothes",
        num_classes=10,
        image_shape=(1, 28, 28),
        num_train=60_000,
        num_test=10_000,
        address="https://github.com/zalandoresearch/fashion-mnist",
        download_mb=31,
        licence="MIT",
    ),
    files={
        "train": (
            _file("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            _file("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ),
        "test": (
            _file("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            _file("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
    },
)
