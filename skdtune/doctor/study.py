"""Whether a worker of this machine could train a study's trials: state, packages, data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from skdtune.doctor.finding import Finding, Installation

if TYPE_CHECKING:
    from skdtune.home import Home
    from skdtune.queue.stored_study import StoredStudy


_found = partial(Finding, "study")


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at the study that is named, or at all of a family."""
    from skdtune.errors import SkdtuneError, StorageError
    from skdtune.queue.stored_study import expand_family, load_study

    url = installation.storage_url
    try:
        named = installation.study
        names = expand_family(named, storage=url) if named else []
    except StorageError:
        # Why is said where the storage is looked at.
        return
    for name in names:
        try:
            with contextlib.closing(load_study(name, storage=url)) as stored:
                yield from _examine(stored, installation.home)
        except SkdtuneError as error:
            yield _found("wrong", str(error))


def _examine(stored: StoredStudy, home: Home) -> Iterator[Finding]:
    from skdtune.data.look import look_at_data
    from skdtune.errors import DataError
    from skdtune.queue.pausing import paused_reason
    from skdtune.queue.stored_study import require_packages

    name = stored.study.study_name
    if reason := paused_reason(stored.engine, stored.study_id):
        remedy = f"mend it, then `skdtune resume {name}`"
        yield _found("note", f"{name} is paused: {reason}", remedy)
    require_packages(stored)
    missing = look_at_data([stored.spec], data_dir=home.data)
    for warning in missing:
        yield _found("note", f"{name}: {warning}")
    try:
        yield from _compare_data(stored, home)
    except DataError:
        # What is missing was said.
        if not missing:
            raise


def _compare_data(stored: StoredStudy, home: Home) -> Iterator[Finding]:
    """Compare the images on this machine with those that the study was begun with."""
    from skdtune.data.source import find_source, first_changed_file
    from skdtune.data.wall import test_split_open
    from skdtune.describe.data_source import Part, refusal
    from skdtune.queue.pinned_source import read_pins

    name = stored.study.study_name
    pins = read_pins(stored.engine, stored.study_id, name)
    # Looking fetches nothing.
    data = stored.spec.data.model_copy(update={"download": False})
    is_tested = stored.spec.kind.is_tested
    parts: tuple[Part, ...] = ("train", "test") if is_tested else ("train",)
    for part in parts:
        with test_split_open() if is_tested else contextlib.nullcontext():
            found = find_source(data, part, data_dir=home.data, cache_dir=home.cache)
        images = f"{name}: its {'training' if part == 'train' else 'test'} images are here"
        if part not in pins:
            yield _found("ok", f"{images}; it was not begun with any yet")
        elif pins[part] == found.source:
            yield _found("ok", f"{images}, and those that it was begun with")
        else:
            file = first_changed_file(pins[part], found, home.cache)
            yield _found("wrong", refusal(name, part, pins[part], found.source, file))
