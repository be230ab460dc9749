"""Tiny-ImageNet-200 in the form in which Stanford's CS231N publishes it.

Source: http://cs231n.stanford.edu/tiny-imagenet-200.zip. The images of ``val``, whose labels are
in ``val_annotations.txt``, are the test part here and everywhere, since those of ``test`` have
none.
The checksum is the one that its readers agree on; its authors give none.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from skdtune.data.archive import Archive
from skdtune.data.data_set import FileListing
from skdtune.data.listed_files import ListedFiles, images_in, read_list, read_rows
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

_FOLDER = "tiny-imagenet-200"


class TinyImageNet(ListedFiles):
    """Two hundred classes of ImageNet at 64 x 64 pixels; some images are grey."""

    def list_part(self, root: Path, split: str) -> FileListing:
        """List ``train/<wnid>/images``, or what ``val/val_annotations.txt`` names."""
        folder = root / _FOLDER
        wnids = sorted(row[0] for row in read_rows(folder / "wnids.txt"))
        labels = {wnid: label for label, wnid in enumerate(wnids)}
        if split == "train":
            files = [
                (f"train/{wnid}/images/{name}", wnid)
                for wnid in wnids
                for name in images_in(folder / "train" / wnid / "images", (".jpeg",), fewest=2)
            ]
        else:
            rows = read_rows(folder / "val" / "val_annotations.txt")
            files = [(f"val/images/{row[0]}", row[1]) for row in rows]
        if unknown := {wnid for _, wnid in files} - labels.keys():
            raise DataError(
                f"{folder / 'val/val_annotations.txt'} names {min(unknown)}, which is not in "
                "wnids.txt: unpack it again"
            )
        return FileListing(
            folder=folder,
            paths=[path for path, _ in files],
            labels=[labels[wnid] for _, wnid in files],
            class_names=_class_names(folder, wnids),
        )

    def missing_test(self, root: Path) -> str:
        """Look for the folder of the test part, and for the list of its labels."""
        folder = root / _FOLDER / "val"
        return "" if folder.is_dir() else f"there is no folder {folder}"


def _class_names(folder: Path, wnids: list[str]) -> tuple[str, ...]:
    """Take the first of the words of each class, which another class may have, too."""
    text = read_list(folder / "words.txt", lambda path: path.read_text(encoding="utf-8"))
    words = dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    first = [words.get(wnid, wnid).partition(",")[0] for wnid in wnids]
    times = Counter(first)
    return tuple(
        name if times[name] == 1 else f"{name} ({wnid})"
        for name, wnid in zip(first, wnids, strict=True)
    )


TINY_IMAGENET = TinyImageNet(
    about=DataFacts(
        title="Tiny-ImageNet: 64 x 64 photographs of 200 classes of ImageNet",
        num_classes=200,
        num_train=100_000,
        num_test=10_000,
        address="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        download_mb=248,
        licence="none stated; the images are ImageNet's, for research",
        recipe="tiny_imagenet",
        may_be_part=True,
    ),
    sources=(
        Archive(
            url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            filename="tiny-imagenet-200.zip",
            md5="90528d7ca1a48142e341f4ef8d21d0de",
            folder=_FOLDER,
        ),
    ),
)
