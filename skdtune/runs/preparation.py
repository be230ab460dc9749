"""What a run needs on this machine, loaded and checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

from skdtune.data.store import DataOnDevice, DataStore
from skdtune.data.wall import test_split_open
from skdtune.describe.data_source import DataSource
from skdtune.describe.training_length import require_long_enough
from skdtune.runs.plan import RunPlan
from skdtune.worker.requirements import require_importable, tell_of_data
from skdtune.worker.teacher import require_honest_teacher


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The images of a run."""

    source: DataSource
    """What they come from."""

    images: DataOnDevice
    """What is learned from, and judged on unless all is learned from."""


def prepare_run(plan: RunPlan, store: DataStore, *, test: bool) -> RunData:
    """Load what a run needs, so that what is missing is said before it begins.

    Args:
        plan: What is trained.
        store: The data, held from here on to what their images come from now.
        test: The test images are scored in the end.

    Raises:
        OtherDataError: If the study that the run is from was begun with other images.
        InputError: If something is missing or cannot be used.
    """
    spec, config = plan.spec, plan.config.data
    require_importable(spec)
    name = str(plan.origin.get("study", spec.name))
    # Before anything is decoded, which takes longer; what is loaded after is compared with it.
    source = store.hold(config, "train", name, plan.pinned)
    if test:
        with test_split_open():
            store.hold(config, "test", name, None)
    images = store.undivided(config) if plan.all_images else store.get(config)
    require_long_enough(spec, len(images.train))
    if images.val is not None:
        require_honest_teacher(spec, images.fingerprint)
    if test:
        with test_split_open():
            store.decode_test(config)
    tell_of_data(store, config, is_tested=test)
    return RunData(source=source, images=images)
