"""A look at all images of a part of a data set: what is broken, what is odd, what is there twice.

A search sees the training part only. This is for the person who has the data: the test part is
looked at as files, for damage and for twins, and nothing learns from it or is judged on it.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from PIL import Image

from skdtune.data.content_digest import content_digest, pixel_digest
from skdtune.data.data_set import ArrayDataSet, FileDataSet, FileListing, PartRequest, data_set
from skdtune.data.decoding import FORMATS, decode_file
from skdtune.data.images import Split
from skdtune.data.loading import listed_files
from skdtune.data.many_files import with_each_file
from skdtune.data.wall import test_split_open
from skdtune.describe.data_config import DataConfig
from skdtune.errors import DataError

_ORIENTATION = 0x0112
_USUAL_MODE = "RGB"

ODDITIES: Mapping[str, str] = {
    "greyscale": "become RGB with three equal channels",
    "CMYK": "are converted to RGB",
    "palette": "are converted to RGB",
    "transparency": "lose it",
    "16 bits": "are cut to 8 bits",
    "other colours": "are converted to RGB",
    "turned by EXIF": "are taken as they are stored, as torchvision does",
    "another format than the name says": "are read as what they are",
}
"""What an image may be beside RGB, and what is done with it."""

_MODES = {
    "L": "greyscale",
    "1": "greyscale",
    "LA": "transparency",
    "RGBA": "transparency",
    "PA": "transparency",
    "CMYK": "CMYK",
    "P": "palette",
    "I;16": "16 bits",
    "I": "16 bits",
}


@dataclass(kw_only=True)
class PartInspection:
    """What was seen of one part."""

    split: Split
    num_images: int = 0
    num_classes: int = 0
    smallest_class: tuple[str, int] = ("", 0)
    """Name of the class with the fewest images, and how many it has."""

    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    """Width and height of the smallest and of the largest image; None of none."""

    broken: dict[str, str] = field(default_factory=dict)
    """What is wrong with each file that cannot be decoded, by its path."""

    odd: dict[str, int] = field(default_factory=dict)
    """How many images are odd in each way of :data:`ODDITIES`."""

    content: str = ""
    """Identifies the images that can be decoded, in no order and whatever they lie in."""

    fault: str = ""
    """Why the part cannot be used as a whole; empty if it can."""


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Images that are identical, pixel by pixel as they are decoded."""

    images: tuple[str, ...]
    """The part and the path of each; of arrays the part and the row."""

    is_leak: bool
    """Some are in the test part and some are learned from."""

    classes: tuple[str, ...]
    """Their classes: more than one is a contradiction."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was seen of a data set."""

    parts: tuple[PartInspection, ...]
    twins: tuple[Twins, ...]

    @property
    def is_usable(self) -> bool:
        """A study can be trained on it."""
        return not any(part.broken or part.fault for part in self.parts)


def inspect_data(
    config: DataConfig, *, data_dir: Path, with_test: bool, image_size: int
) -> Inspection:
    """Look at all images of a data set; the bar goes to the standard error stream.

    Nothing is fetched; an archive that is here is unpacked.

    Args:
        config: Data settings: the name, and perhaps the root.
        data_dir: Where the data lie unless ``config.root`` says otherwise.
        with_test: Look at the test part, too, for damage and for twins.
        image_size: Side in pixels of the squares that are compared.

    Raises:
        DataError: If the data are not here.
    """
    parts: list[PartInspection] = []
    seen: dict[bytes, list[tuple[Split, str, str]]] = defaultdict(list)
    splits: tuple[Split, ...] = ("train", "test") if with_test else ("train",)
    entry = data_set(config.name)
    for split in splits:
        request = PartRequest.of(config, split, data_dir)
        part = PartInspection(split=split)
        parts.append(part)
        try:
            if missing := entry.glance(request).missing:
                remedy = f"`skdtune data prepare {config.name}` fetches what can be fetched"
                raise DataError(f"{missing}: {remedy}")
            with test_split_open():
                if isinstance(entry, FileDataSet):
                    digests = _of_files(part, listed_files(entry, request), image_size)
                else:
                    digests = _of_arrays(part, entry, request)
        except DataError as error:
            part.fault = str(error)
            continue
        part.content = content_digest((name, digest) for digest, _, name in digests)
        for digest, path, name in digests:
            seen[digest].append((split, path, name))
    return Inspection(parts=tuple(parts), twins=tuple(_twins(seen)))


def _of_arrays(
    part: PartInspection, entry: ArrayDataSet, request: PartRequest
) -> list[tuple[bytes, str, str]]:
    """Decode arrays, which are right or wrong as a whole."""
    decoded = entry.decode(request)
    names = [decoded.class_names[label] for label in decoded.labels_N]
    _count(part, names, decoded.class_names)
    _, height, width, _ = decoded.images_NHWC.shape
    part.sizes = ((width, height), (width, height))
    return [
        (pixel_digest(pixels), f"image {row}", name)
        for row, (pixels, name) in enumerate(zip(decoded.images_NHWC, names, strict=True))
    ]


def _of_files(
    part: PartInspection, listing: FileListing, image_size: int
) -> list[tuple[bytes, str, str]]:
    """Decode each file, and note what it is."""
    names = [listing.class_names[label] for label in listing.labels]
    _count(part, names, listing.class_names)
    digests: dict[int, bytes] = {}
    odd: Counter[str] = Counter()
    sizes: set[tuple[int, int]] = set()
    lock = Lock()

    def look(row: int) -> None:
        path = listing.folder / listing.paths[row]
        try:
            pixels_HWC = decode_file(path, image_size)
        except DataError as error:
            with lock:
                part.broken[str(path)] = str(error)
            return
        kinds, size = _facts(path)
        with lock:
            digests[row] = pixel_digest(pixels_HWC)
            odd.update(kinds)
            sizes.add(size)

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with_each_file("checking", listing.folder, len(listing), look)
    part.broken = dict(sorted(part.broken.items()))
    part.odd = {kind: odd[kind] for kind in ODDITIES if odd[kind]}
    if sizes:
        by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
        part.sizes = (by_area[0], by_area[-1])
    return [(digests[row], listing.paths[row], names[row]) for row in sorted(digests)]


def _facts(path: Path) -> tuple[list[str], tuple[int, int]]:
    """Say in which ways an image that can be decoded is odd, and how large it is."""
    with Image.open(path, formats=FORMATS) as image:
        kinds = []
        if image.mode != _USUAL_MODE:
            kinds.append(_MODES.get(image.mode, "other colours"))
        if image.getexif().get(_ORIENTATION, 1) != 1:
            kinds.append("turned by EXIF")
        expected = Image.registered_extensions().get(path.suffix.lower())
        # All of one kind: PGM and PBM files are PPM to Pillow.
        if expected is not None and image.format != expected:
            kinds.append("another format than the name says")
        return kinds, image.size


def _count(part: PartInspection, names: list[str], class_names: tuple[str, ...]) -> None:
    counts = Counter(dict.fromkeys(class_names, 0))
    counts.update(names)
    part.num_images, part.num_classes = len(names), len(class_names)
    part.smallest_class = min(counts.items(), key=lambda item: item[1])


def _twins(seen: Mapping[bytes, list[tuple[Split, str, str]]]) -> Iterator[Twins]:
    """Go through the groups of two or more, leaks and contradictions first."""
    groups = [group for group in seen.values() if len(group) > 1]
    twins = [
        Twins(
            images=tuple(f"{split}/{path}" for split, path, _ in group),
            is_leak=len({split for split, _, _ in group}) > 1,
            classes=tuple(sorted({name for _, _, name in group})),
        )
        for group in groups
    ]
    yield from sorted(twins, key=lambda t: (not t.is_leak, len(t.classes) < 2, t.images))
