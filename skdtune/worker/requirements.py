"""What any training asks of this machine before its first epoch, in a study or without one."""

from __future__ import annotations

import contextlib
import logging

from skdtune.catalogues.methods import METHODS
from skdtune.catalogues.models import MODELS
from skdtune.data.store import DataStore
from skdtune.data.wall import test_split_open
from skdtune.describe.data_config import DataConfig
from skdtune.describe.method_config import settings_of
from skdtune.describe.packages import names_in
from skdtune.describe.spec import StudySpec
from skdtune.methods.catalogue import term_class
from skdtune.models.backbone import builder_of
from skdtune.models.pretrained import require_network

logger = logging.getLogger(__name__)


def require_importable(spec: StudySpec) -> None:
    """Refuse terms, networks and weights that would fail every trial in the same way.

    Raises:
        InputError: If one cannot be imported, or the network cannot begin with its weights.
    """
    for kind, name in names_in(spec):
        if kind == METHODS.kind:
            term_class(settings_of(name))
        elif kind == MODELS.kind:
            builder_of(name)
    require_network(spec.base_config())


def tell_of_data(store: DataStore, config: DataConfig, *, is_tested: bool) -> None:
    """Say what a person should know of data that can be used all the same.

    Args:
        store: The data.
        config: Which data.
        is_tested: The test images are looked at in the end, and may be looked at now.
    """
    missing = "" if is_tested else store.look_for_test(config)
    if missing and store.is_news(missing):
        logger.warning("%s", missing)
    with test_split_open() if is_tested else contextlib.nullcontext():
        found = store.duplicates(config, is_tested=is_tested)
    described = found.describe(config.name)
    if described and store.is_news(described):
        logger.warning("%s", described)
