"""All that installed packages offer to skdtune, and whether it can be taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skdtune.catalogues.catalogue import Catalogue, Package
from skdtune.catalogues.datasets import DATASETS
from skdtune.catalogues.engines import ENGINES
from skdtune.catalogues.hooks import HOOKS
from skdtune.catalogues.methods import METHODS
from skdtune.catalogues.models import MODELS, usable_family
from skdtune.describe.data_facts import facts_of
from skdtune.describe.method_config import settings_of
from skdtune.errors import InputError

#: What refuses an entry of a kind that a description asks about.
_CHECKS: dict[str, Callable[[str], object]] = {
    METHODS.kind: settings_of,
    DATASETS.kind: facts_of,
    MODELS.kind: usable_family,
}
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
            if check := _CHECKS.get(catalogue.kind):
                check(name)
            else:
                catalogue[name]
        except InputError as error:
            # What it is and whose is said beside it.
            reason = str(error).removeprefix(f"the {catalogue.kind} {name!r} of the package ")
            reason = reason.removeprefix(f"{package} ")
        offered.append(Offer(catalogue.kind, name, package, reason))
    return sorted(offered, key=lambda offer: (offer.name, offer.package))
