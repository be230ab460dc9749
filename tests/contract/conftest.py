from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture
def connections_end() -> Iterator[None]:
    """Close what commands leave to the end of their process, which in a test is not its end."""
    # What was there before is none of theirs, and looking through it takes longer than a test.
    gc.freeze()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.unfreeze()
