"""What the images of a study come from: counted and identified class by class, undivided.

It knows no size that images are scaled to, no decoder and no split, so all trials of a study have
the same. Its order is that of the rows, because the split follows from it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Part = Literal["train", "test"]

_REMEDIES: dict[Part, str] = {
    "train": "use the same data, or create a new study",
    "test": "use the same data, or evaluate under another --name",
}


@dataclass(frozen=True)
class ClassSource:
    """The images of one class."""

    name: str
    num_images: int
    """All that are there, whether or not a limit keeps them."""

    digest: str
    """Identifies the contents of those that are kept, in their order."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """The images of a part of a data set before they are decoded, scaled or divided."""

    classes: tuple[ClassSource, ...]
    """In the order of their numbers."""

    folder: str = field(default="", compare=False)
    """Where they are on this machine; empty where it is read from a storage."""

    content: str = field(default="", compare=False)
    """Identifies the images in no order, whatever they lie in; empty where nobody took it."""

    @functools.cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify all of it."""
        return short_digest(json.dumps(self._rows()).encode())

    def to_plain(self) -> dict[str, Any]:
        """Return plain data for a storage."""
        plain: dict[str, Any] = {"digest": self.digest, "classes": self._rows()}
        return {**plain, "content": self.content} if self.content else plain

    @classmethod
    def from_plain(cls, stored: Any) -> DataSource:
        """Read what `to_plain` wrote.

        Raises:
            ValueError: If it is damaged.
        """
        try:
            classes = tuple(ClassSource(*row) for row in stored["classes"])
            source = cls(classes=classes, content=str(stored.get("content", "")))
            is_whole = stored["digest"] == source.digest
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError("it does not list classes") from error
        if not is_whole or not all(_is_sound(one) for one in classes):
            raise ValueError("its digest is another one")
        return source

    def first_difference(self, found: DataSource) -> tuple[str, str]:
        """Say what differs first in another source.

        Args:
            found: The other one, unequal to this.

        Returns:
            The name of a class, empty if there is none to name, and half a sentence.
        """
        there = {one.name: one for one in found.classes}
        for own in self.classes:
            other = there.pop(own.name, None)
            if other is None:
                return own.name, f"class {own.name!r} is missing"
            if other.num_images != own.num_images:
                numbers = f"{other.num_images} of them, not {own.num_images}"
                return own.name, f"class {own.name!r} has {numbers}"
            if other.digest != own.digest:
                return own.name, f"the images of class {own.name!r} are other ones"
        for name in there:
            return name, f"class {name!r} is new"
        return "", "the classes are in another order"

    def _rows(self) -> list[list[str | int]]:
        return [[one.name, one.num_images, one.digest] for one in self.classes]


def refusal(
    study: str, part: Part, pinned: DataSource, found: DataSource, file: str | None = None
) -> str:
    """Say in one line why a worker takes no trial of a study.

    Args:
        study: Name of the study.
        part: Which part of the data set differs.
        pinned: What the study was begun with.
        found: What this machine has.
        file: What happened to the first file that differs; None where that is not known.
    """
    _, what = pinned.first_difference(found)
    if pinned.content and pinned.content == found.content:
        what = "they are the same images in another layout, whose order, and so the split, differs"
    images = "training" if part == "train" else "test"
    return (
        f"study {study!r} was begun with other {images} images than {found.folder} has now: "
        f"{what}{f' ({file})' if file else ''}; {_REMEDIES[part]}"
    )


def short_digest(content: bytes) -> str:
    """Return sixteen hexadecimal digits of the SHA-256 of something."""
    return hashlib.sha256(content).hexdigest()[:16]


def _is_sound(one: ClassSource) -> bool:
    return (
        isinstance(one.name, str)
        and isinstance(one.num_images, int)
        and isinstance(one.digest, str)
    )
