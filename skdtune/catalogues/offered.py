"""All that installed packages offer to skdtune, and whether it can be taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skdtune.catalogues.catalogue import Catalogue, Package
from skdtune.catalogues.datasets import DATASETS
from skdtune.catalogues.engines import ENGINES
from skdtune.catalogues.hooks import HOOKS
from skdtune.catalogues.methods import METHODS
from skdtune.catalogues.models import MODELS
from skdtune.errors import InputError

#: The catalogues that packages may add to.
OPEN_CATALOGUES: tuple[Catalogue[Any], ...] = (METHODS, DATASETS, MODELS, ENGINES, HOOKS)


@dataclass(frozen=True)
class Offer:
    """Something that an installed package adds to a catalogue, or would."""

    kind: str
    """What people call it: ``method``."""

    name: str
    package: Package

    problem: str | None = None
    """Why it cannot be taken; None where it can."""


def offers() -> list[Offer]:
    """List what packages offer; each is imported, to know whether it can be."""
    return [offer for catalogue in OPEN_CATALOGUES for offer in _offers_to(catalogue)]


def _offers_to(catalogue: Catalogue[Any]) -> list[Offer]:
    offered = [
        Offer(catalogue.kind, problem.name, problem.package, problem.reason)
        for problem in catalogue.problems
    ]
    for name in catalogue.offered:
        package = catalogue.package(name)
        assert package is not None
        reason = None
        try:
            catalogue[name]
        except InputError as error:
            cause = error.__cause__
            text = " ".join(str(cause).split())[:200]
            reason = f"cannot be imported: {type(cause).__name__}: {text}"
        offered.append(Offer(catalogue.kind, name, package, reason))
    return sorted(offered, key=lambda offer: (offer.name, offer.package))
