"""CIFAR-10 and CIFAR-100 in the form in which their authors publish them.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009;
https://www.cs.toronto.edu/~kriz/cifar.html. The authors give the checksums of the archives; those
of the files in them are torchvision's. The files are opened here, because torchvision reads the
test images to check them even when only the training images are asked for.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from skdtune.data.archive import Archive
from skdtune.data.data_set import ArrayDataSet, DecodedPart, Glance, PartRequest
from skdtune.data.short_hash import short_hash
from skdtune.describe.data_facts import DataFacts

if TYPE_CHECKING:
    from skdtune.data.images import Split

_ADDRESS = "https://www.cs.toronto.edu/~kriz"


@dataclass(frozen=True, kw_only=True)
class Cifar(ArrayDataSet):
    """One of the two; only the files of the part that is asked for are opened."""

    archive: Archive
    """What its files come in."""

    files: Mapping[Split, tuple[tuple[str, str], ...]]
    """The files of each part in their order, each with its md5."""

    names: tuple[str, str]
    """The file with the names of the classes, and its md5."""

    label: Literal["label", "fine_label"]
    """Which labels: CIFAR-100 has two sets of them, the fine ones are its hundred classes."""

    def version(self, request: PartRequest) -> str:
        """Name the part by its files and their checksums."""
        return short_hash(repr(list(self.files[request.split])))

    def glance(self, request: PartRequest) -> Glance:
        """Look for the archive, or for the names of the files in the folder that it becomes."""
        folder = request.root / self.archive.folder
        if not folder.is_dir():
            missing = "" if request.download else self.archive.missing(request)
            return Glance(missing=missing)
        for name, _ in (*self.files["train"], self.names):
            self.archive.require(folder / name)
        lost = [name for name, _ in self.files["test"] if not (folder / name).is_file()]
        return Glance(missing_test=f"there is no file {folder / lost[0]}" if lost else "")

    def decode(self, request: PartRequest) -> DecodedPart:
        """Read the published files, each only after its checksum was compared."""
        import numpy as np

        folder = self.archive.unpacked(request)
        files = [*self.files[request.split], self.names]
        for name, md5 in files:
            self.archive.check(folder / name, md5)
        contents: list[dict[str, Any]] = []
        for name, _ in files:
            # The checksum was compared, so this is the published file and no stranger's program.
            with (folder / name).open("rb") as file:
                contents.append(pickle.load(file, encoding="latin1"))
        *batches, names = contents
        images_NCHW = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = [label for batch in batches for label in batch[f"{self.label}s"]]
        return DecodedPart(
            images_NHWC=np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)),
            labels_N=np.array(labels, dtype=np.int64),
            class_names=tuple(names[f"{self.label}_names"]),
        )


CIFAR_10 = Cifar(
    about=DataFacts(
        title="CIFAR-10: 32 x 32 photographs of ten kinds of things",
        num_classes=10,
        image_shape=(3, 32, 32),
        num_train=50_000,
        num_test=10_000,
        address=f"{_ADDRESS}/cifar.html",
        download_mb=170,
        licence="none stated by its authors, who ask to be cited",
        recipe="cifar10",
    ),
    archive=Archive(
        url=f"{_ADDRESS}/cifar-10-python.tar.gz",
        filename="cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
    ),
    files={
        "train": (
            ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
            ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            ("data_batch_4", "634d18415352ddfa80567beed471001a"),
            ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ),
        "test": (("test_batch", "40351d587109b95175f43aff81a1287e"),),
    },
    names=("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
    label="label",
)

CIFAR_100 = Cifar(
    about=DataFacts(
        title="CIFAR-100: 32 x 32 photographs of a hundred kinds of things",
        num_classes=100,
        image_shape=(3, 32, 32),
        num_train=50_000,
        num_test=10_000,
        address=f"{_ADDRESS}/cifar.html",
        download_mb=169,
        licence="none stated by its authors, who ask to be cited",
        recipe="cifar100",
    ),
    archive=Archive(
        url=f"{_ADDRESS}/cifar-100-python.tar.gz",
        filename="cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
    ),
    files={
        "train": (("train", "16019d7e3df5f24257cddd939b257f8d"),),
        "test": (("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),),
    },
    names=("meta", "7973b15100ade9c7d40fb424638fde48"),
    label="fine_label",
)
