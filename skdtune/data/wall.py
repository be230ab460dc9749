"""The wall around the test images: closed, unless a final evaluation or `train --test` opens it.

It stands where the images are loaded, not where they are asked for: a search that came to call a
loader by mistake ends with an error and has read nothing. Whether it is open belongs to the
thread that opened it; any other thread finds it closed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from skdtune.data.images import Split
from skdtune.errors import TestSplitClosedError

_is_open: ContextVar[bool] = ContextVar("skdtune_test_split_is_open", default=False)


@contextlib.contextmanager
def test_split_open() -> Iterator[None]:
    """Let the test images be loaded within this block, after the last epoch of a training."""
    before = _is_open.set(True)
    try:
        yield
    finally:
        _is_open.reset(before)


def require_open(split: Split) -> None:
    """Refuse to go on to the test images while the wall is closed.

    Args:
        split: The part that is about to be read; the training part is always open.

    Raises:
        TestSplitClosedError: If it is the test part, outside of a final evaluation.
    """
    if split == "test" and not _is_open.get():
        raise TestSplitClosedError(
            "the test images were asked for outside of a final evaluation, and were not read: "
            "a search must not see them; this is a fault of the program"
        )
