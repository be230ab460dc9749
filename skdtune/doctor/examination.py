"""All that is looked at, in its order; whatever goes wrong in one part is a finding of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from skdtune.doctor.finding import Finding, Installation
from skdtune.errors import SkdtuneError, in_one_line

#: What is looked at and where; each is a file of this folder with a function ``examine``.
PARTS = ("software", "device", "kernels", "storage", "workers", "folders", "study")


def examine(installation: Installation) -> Iterator[Finding]:
    """Look at everything; a finding is given out as soon as it is there.

    Args:
        installation: What to look at.
    """
    for part in PARTS:
        try:
            yield from import_module(f"skdtune.doctor.{part}").examine(installation)
        except SkdtuneError as error:
            yield Finding(about=part, level="wrong", says=str(error))
        except Exception as error:
            # An examination must not end at what it is there to find.
            says = f"{type(error).__name__}: {in_one_line(error)}"
            yield Finding(about=part, level="wrong", says=says)
