"""Which versions are installed, and whether what other packages add can be used."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import skdtune
from skdtune.doctor.finding import Finding, Installation

#: What training needs beside what is always installed.
_FOR_TRAINING = ("torch", "torchvision")


def examine(installation: Installation) -> Iterator[Finding]:
    """Say what is installed."""
    from skdtune.describe.offered import offers, require_usable
    from skdtune.describe.packages import installed_version

    needed = {name: installed_version(name) for name in ("optuna", *_FOR_TRAINING)}
    there = [f"{name} {found}" for name, found in needed.items() if found]
    says = ", ".join(
        [f"skdtune {skdtune.__version__}", f"Python {platform.python_version()}", *there]
    )
    missing = [name for name in _FOR_TRAINING if needed[name] is None]
    if missing:
        yield Finding(
            about="software",
            level="note",
            says=f"{says}; {' and '.join(missing)} not installed, so no worker runs here",
            remedy="where workers shall run: pip install 'skdtune[train]'",
        )
    else:
        yield Finding(about="software", level="ok", says=says)
    for offer in offers(require_usable):
        if offer.problem:
            yield Finding(
                about="software",
                level="note",
                says=f"{offer.name} of {offer.package} cannot be used: {offer.problem}",
                remedy="install a version that fits; `skdtune extensions` lists all",
            )
