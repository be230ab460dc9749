"""What is known of a data set before any of it is read.

Mean and standard deviation of the channels are not among it: images are always normalised by what
is measured on those that a trial learns from.
"""

from __future__ import annotations

from dataclasses import dataclass

from skdtune.catalogues.datasets import DATASETS
from skdtune.errors import InputError, in_one_line


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What people and studies may ask of a data set.

    Another number of classes or another shape of images than these are refused when loaded.
    """

    title: str
    """What it is, in a few words."""

    num_classes: int | None = None
    """Number of classes; None if the files decide."""

    image_shape: tuple[int, int, int] | None = None
    """Channels, height and width of an image; None if the files or ``data.image_size`` decide."""

    num_train: int | None = None
    """Images to learn from and to choose by; None if the files decide."""

    num_test: int | None = None
    """Images for the final evaluation; None if the files decide."""

    address: str | None = None
    """Where it comes from."""

    download_mb: int | None = None
    """What is fetched, in millions of bytes, about; None if nothing is, or nobody knows."""

    licence: str | None = None
    """Under which terms, as its authors say it; that they say nothing where they do not."""

    recipe: str | None = None
    """Name of the file in ``studies/data/`` that has a published recipe for it, if one has."""

    needs_root: str | None = None
    """What ``data.root`` must be, where there is no default for it."""

    may_be_part: bool = False
    """Some of its classes, in the layout of all, can be trained on, too."""

    is_at_hand: bool = False
    """It comes with an installed package: nothing to fetch, next to nothing to decode."""


def facts_of(name: str) -> DataFacts:
    """Return what is known of a data set.

    Raises:
        InputError: If it comes from a package that cannot be imported, or says nothing of it.
    """
    entry = DATASETS[name]
    try:
        about = getattr(entry, "about", None)
    except Exception as error:
        raise InputError(
            f"{DATASETS.described(name)} cannot say what is known of it: "
            f"{type(error).__name__}: {in_one_line(error)}"
        ) from error
    if not isinstance(about, DataFacts):
        raise InputError(
            f"{DATASETS.described(name)} has no `about`, the DataFacts of what is known of it"
        )
    return about
