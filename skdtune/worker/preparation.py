"""What a study needs on this machine, loaded and checked before a trial is taken."""

from __future__ import annotations

import os

from skdtune.data.store import DataOnDevice, DataStore
from skdtune.data.wall import test_split_open
from skdtune.describe.config import TrialConfig
from skdtune.describe.data_source import DataSource, Part
from skdtune.describe.spec import StudySpec
from skdtune.describe.training_length import require_long_enough
from skdtune.queue.pinned_source import Sources
from skdtune.signals import SUPERVISED_VARIABLE
from skdtune.worker.hooks.named import hooks_of
from skdtune.worker.requirements import require_importable, tell_of_data
from skdtune.worker.teacher import require_honest_teacher


def data_of_study(store: DataStore, spec: StudySpec) -> DataOnDevice:
    """Return what the trials of a study learn from, as far as its settings are the base's."""
    return data_of_trial(store, spec, spec.base_config())


def data_of_trial(store: DataStore, spec: StudySpec, config: TrialConfig) -> DataOnDevice:
    """Return what a trial learns from, and is judged on where it does not learn from all."""
    undivided = spec.kind.learns_from_all_images
    return store.undivided(config.data) if undivided else store.get(config.data)


def prepare_study(
    store: DataStore, spec: StudySpec, study: str | None = None, pinned: Sources | None = None
) -> Sources:
    """Load what a study needs, so that what is missing is said before a trial is taken.

    Args:
        store: The worker's data, held from here on to what their images come from now.
        spec: The study.
        study: Its name; default that of the spec.
        pinned: The data that it was begun with.

    Returns:
        The data that this machine has.

    Raises:
        OtherDataError: If the study was begun with other data.
        InputError: If something is missing or cannot be used.
    """
    hooks_of(spec.hooks)
    require_importable(spec)
    name, pins = study or spec.name, pinned or {}
    sources: dict[Part, DataSource] = {}
    # Before anything is decoded, which takes longer; what is loaded after is compared with it.
    sources["train"] = store.hold(spec.data, "train", name, pins.get("train"))
    if spec.kind.is_tested:
        with test_split_open():
            sources["test"] = store.hold(spec.data, "test", name, pins.get("test"))
    data = data_of_study(store, spec)
    require_long_enough(spec, len(data.train))
    require_honest_teacher(spec, data.fingerprint)
    if spec.kind.is_tested:
        with test_split_open():
            store.decode_test(spec.data)
    # Whoever starts workers has prepared the data before, and was told what they are like.
    if SUPERVISED_VARIABLE not in os.environ:
        tell_of_data(store, spec.data, is_tested=spec.kind.is_tested)
    return sources
