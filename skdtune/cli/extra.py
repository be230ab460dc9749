"""Commands that train or read networks, on a machine without the extra that has torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

#: What such a machine lacks, by the name of the import.
_TRAIN_PACKAGES = ("torch", "numpy", "safetensors", "fsspec")


@contextlib.contextmanager
def needs_train_extra(command: str) -> Iterator[None]:
    """Say what to install where a package of the extra ``train`` is missing.

    Args:
        command: The command that needs it.

    Raises:
        InputError: If one is missing.
    """
    from skdtune.errors import InputError

    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _TRAIN_PACKAGES:
            raise
        raise InputError(
            f"{command} needs {error.name}, which is not installed: pip install 'skdtune[train]'"
        ) from None
