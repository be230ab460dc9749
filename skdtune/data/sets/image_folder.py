"""Image files of one's own, one folder for each class: ``root/train/<class>/*.jpg``."""

from __future__ import annotations

from pathlib import Path
from posixpath import basename

from skdtune.data.data_set import FileDataSet, FileListing, Glance, PartRequest
from skdtune.data.real_files import entries_of, files_below, leads_to_folder
from skdtune.describe.data_facts import DataFacts
from skdtune.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What the name of an image file ends with, as torchvision's ``ImageFolder`` has it."""


class ImageFolder(FileDataSet):
    """The folder of the other part is not opened, but for the names of the training classes."""

    def glance(self, request: PartRequest) -> Glance:
        """List the training images, unless the whole folder is somewhere else."""
        if not request.root.exists():
            return Glance(missing=f"there is no folder {request.root}")
        test = request.root / "test"
        missing_test = "" if test.is_dir() else f"there is no folder {test}"
        return Glance(training_files=self.list_files(request), missing_test=missing_test)

    def list_files(self, request: PartRequest) -> FileListing:
        """List the images of each class folder, at any depth."""
        class_names = _class_names(request.root)
        folder = request.root / request.split
        if request.split == "test":
            _check_test_classes(folder, class_names)
        needed = request.fewest_per_class
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(class_names):
            # macOS leaves files such as ._0001.jpg that are no images.
            images = [
                f"{name}/{path}"
                for path in files_below(folder / name)
                if path.lower().endswith(SUFFIXES) and not basename(path).startswith(".")
            ]
            if len(images) < needed:
                raise DataError(
                    f"{folder / name} holds {len(images)} images and needs at least {needed}: add "
                    f"images ({', '.join(SUFFIXES)}) or move the folder of this class elsewhere"
                )
            paths += images
            labels += [label] * len(images)
        return FileListing(
            folder=folder,
            paths=paths,
            labels=labels,
            class_names=class_names,
        )


def _class_names(root: Path) -> tuple[str, ...]:
    layout = f"expected {root}/train/<class>/<image> and {root}/test/<class>/<image>"
    if not root.is_dir():
        raise DataError(f"the folder {root} does not exist: set data.root to your data; {layout}")
    train = root / "train"
    if not train.is_dir():
        present = ", ".join(_folders(root)[:3]) or "no folders"
        raise DataError(f"{root} has no folder train (found {present}): {layout}")
    names = _folders(train)
    if len(names) < 2:
        raise DataError(
            f"{train} has {len(names)} class folders and a classifier needs at least 2: {layout}"
        )
    return tuple(names)


def _check_test_classes(folder: Path, class_names: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise DataError(
            f"{folder} does not exist, so there is nothing to test on: "
            "put test images there as <class>/<image>, with the same classes as in train"
        )
    names = _folders(folder)
    unequal = sorted(set(names) ^ set(class_names))
    if unequal:
        where = folder.name if unequal[0] in names else "train"
        raise DataError(
            f"{folder} and train must have the same class folders, but {unequal[0]} is only in "
            f"{where}: add it to the other one or move it elsewhere"
        )


def _folders(parent: Path) -> list[str]:
    # Names with a leading dot belong to tools (.ipynb_checkpoints), not to classes.
    return sorted(
        entry.name
        for entry in entries_of(parent)
        if not entry.name.startswith(".")
        and (leads_to_folder(entry) if entry.is_symlink() else entry.is_dir())
    )


IMAGE_FOLDER = ImageFolder(
    about=DataFacts(title="a folder of images", needs_root="the folder that holds train/<class>/")
)
