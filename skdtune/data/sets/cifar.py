"""CIFAR-10 and CIFAR-100 in the form in which their authors publish them.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009;
https://www.cs.toronto.edu/~kriz/cifar.html. The authors give the checksums of the archives; those
of the files in them are torchvision's. The files are opened here, because torchvision reads the
test images to check them even when only the training images are asked for.

A tree of image files, ``train/<class>/*.png`` and ``test/<class>/*.png``, is taken, too: sorted
names of the folders give the published labels. Its rows stand in another order, so that a study
keeps to one layout; a digest of the content says that the images are the same.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from skdtune.data.archive import Archive
from skdtune.data.data_set import ArrayDataSet, DecodedPart, Glance, PartRequest
from skdtune.data.listed_files import images_in
from skdtune.data.real_files import entries_of, status_of
from skdtune.data.short_hash import short_hash
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from skdtune.data.images import Split

_SUFFIXES = (".png", ".jpg", ".jpeg")
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
        """Name the part by its files and their checksums, or by the image files of a tree."""
        if not self._is_tree(request.root):
            return short_hash(repr(list(self.files[request.split])))
        facts = []
        for path, label in _files_of_tree(request):
            status = status_of(request.root / path)
            facts.append(f"{label} {status.st_size} {status.st_mtime_ns} {path}")
        return short_hash("tree", *facts)

    def _is_tree(self, root: Path) -> bool:
        """Tell whether the images lie there as files, one folder for each class."""
        return (root / "train").is_dir() and not (root / self.archive.folder).is_dir()

    def glance(self, request: PartRequest) -> Glance:
        """Look for the archive, or for the names of the files in the folder that it becomes."""
        folder = request.root / self.archive.folder
        if self._is_tree(request.root):
            _files_of_tree(replace(request, split="train"))
            test = request.root / "test"
            return Glance(missing_test="" if test.is_dir() else f"there is no folder {test}")
        if not folder.is_dir():
            missing = "" if request.download else self.archive.missing(request)
            return Glance(missing=missing)
        for name, _ in (*self.files["train"], self.names):
            self.archive.require(folder / name)
        lost = [name for name, _ in self.files["test"] if not (folder / name).is_file()]
        return Glance(missing_test=f"there is no file {folder / lost[0]}" if lost else "")

    def decode(self, request: PartRequest) -> DecodedPart:
        """Read the published files, each only after its checksum was compared; or a tree."""
        import numpy as np

        if self._is_tree(request.root):
            return _decoded_tree(request)
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


def _files_of_tree(request: PartRequest) -> list[tuple[str, int]]:
    """List ``<part>/<class>/<image>`` with the labels that sorted names give, the published ones.

    Raises:
        DataError: If a folder is missing, or holds too few images.
    """
    train, part = request.root / "train", request.root / request.split
    if not part.is_dir():
        raise DataError(f"there is no folder {part}: expected {part}/<class>/<image>.png")
    # The names of the classes are those of the training folders, for both parts.
    names = sorted(e.name for e in entries_of(train) if e.is_dir() and e.name[0] != ".")
    return [
        (f"{request.split}/{name}/{image}", label)
        for label, name in enumerate(names)
        for image in sorted(images_in(part / name, _SUFFIXES, request.fewest_per_class))
    ]


def _decoded_tree(request: PartRequest) -> DecodedPart:
    """Decode image files of 32 x 32 pixels, in the order of classes and names."""
    import numpy as np

    from skdtune.data.decoding import decode_files

    files = _files_of_tree(request)
    paths = [path for path, _ in files]
    classes = dict.fromkeys(path.split("/")[1] for path in paths)
    return DecodedPart(
        images_NHWC=decode_files(request.root, paths, 32, name=request.name),
        labels_N=np.array([label for _, label in files], dtype=np.int64),
        class_names=tuple(classes),
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
