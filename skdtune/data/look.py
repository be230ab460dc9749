"""What of a study's data can be seen on the machine that creates it, before anything is trained.

That may be a laptop without the data: what is not here is said, and only what is here and cannot
be used is refused. No image is opened, and of the test part nothing but whether it is there.

Shape legend: K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skdtune.data.data_set import (
    FileDataSet,
    FileListing,
    Glance,
    PartRequest,
    blamed_on_package,
    data_set,
)
from skdtune.describe.data_config import DataConfig
from skdtune.describe.data_facts import DataFacts, facts_of
from skdtune.describe.spec import StudySpec
from skdtune.describe.training_length import most_training_images, require_long_enough
from skdtune.errors import InputError


def look_at_data(specs: Sequence[StudySpec], *, data_dir: Path) -> list[str]:
    """Look at the data of studies, once at each.

    Args:
        specs: The studies.
        data_dir: Where the data lie unless a study's ``data.root`` says otherwise.

    Returns:
        What is not here, a line each, to be said as a warning.

    Raises:
        DataError: If data that are here cannot be used.
        SpecError: If there are too few images for a study's method.
    """
    warnings: list[str] = []
    seen: dict[DataConfig, FileListing | None] = {}
    for spec in specs:
        where = DataConfig(**spec.data.model_dump(include={"name", "root", "download"}))
        if where not in seen:
            glance, seen[where] = _glance(where, data_dir)
            if glance.missing:
                warnings.append(
                    f"the data of {where.name} are not on this machine ({glance.missing}): every "
                    "worker needs them where it runs"
                )
            if glance.missing_test:
                warnings.append(_without_test(where, glance))
        listing = seen[where]
        counted = most_training_images(spec) if listing is None else _count(spec, listing)
        if counted is not None:
            require_long_enough(spec, counted)
    return warnings


def look_for_test(config: DataConfig, *, data_dir: Path) -> str:
    """Say that an evaluation will miss the test images, where a search was prepared.

    Whatever else is missing was not needed: the images may be in the cache.

    Returns:
        One line; empty if they are there.
    """
    try:
        glance, _ = _glance(config, data_dir)
    except InputError:
        return ""
    return _without_test(config, glance) if glance.missing_test else ""


def state_of(name: str, root: str | None, *, data_dir: Path) -> tuple[DataFacts, str]:
    """Say of a data set what is known of it, and whether it is here; nothing is fetched.

    Args:
        name: A name of the catalogue.
        root: Where the data lie, if somebody said so.
        data_dir: Where they lie else.

    Returns:
        What is known, and one line: ``yes``, or why not.

    Raises:
        InputError: If it comes from a package that cannot be imported.
    """
    about = facts_of(name)
    if about.needs_root and root is None:
        return about, f"needs --root, {about.needs_root}"
    try:
        glance, _ = _glance(DataConfig(name=name, root=root, download=False), data_dir)
    except InputError as error:
        return about, str(error)
    if glance.missing:
        return about, glance.missing
    return about, f"yes, but {glance.missing_test}" if glance.missing_test else "yes"


def _without_test(config: DataConfig, glance: Glance) -> str:
    return (
        f"{config.name} has no test images here ({glance.missing_test}): a search needs none, "
        "`skdtune evaluate` does"
    )


def _glance(config: DataConfig, data_dir: Path) -> tuple[Glance, FileListing | None]:
    """Look at a data set, whoever wrote it, and check the files that it lists."""
    entry = data_set(config.name)
    request = PartRequest.of(config, "train", data_dir)
    if config.root is not None and not entry.about.is_at_hand and not request.root.exists():
        return Glance(missing=f"there is no folder {request.root}"), None
    with blamed_on_package(config.name, "looked at"):
        glance = entry.glance(request)
    if glance.training_files is None or not isinstance(entry, FileDataSet):
        return glance, None
    # A data set of arrays is looked at without numpy.
    from skdtune.data.loading import files_in_order

    return glance, files_in_order(entry, glance.training_files, request)


def _count(spec: StudySpec, listing: FileListing) -> int:
    """Count what trials of a study will learn from."""
    import numpy as np

    from skdtune.data.splits import num_validating

    sizes_K = np.bincount(np.asarray(listing.labels), minlength=len(listing.class_names))
    sizes_K = np.minimum(sizes_K, spec.data.max_per_class or sizes_K)
    num_images = int(sizes_K.sum())
    if spec.kind.learns_from_all_images:
        return num_images
    return num_images - int(num_validating(sizes_K, spec.data.val_fraction).sum())
