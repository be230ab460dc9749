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


def require_usable(catalogue: Catalogue[Any], name: str) -> None:
    """Import an entry, and refuse what a description can tell is none.

    Raises:
        KeyError: If there is none of this name.
        InputError: If it cannot be imported, or is not what it is offered as.
    """
    checks: dict[str, Callable[[str], object]] = {
        METHODS.kind: settings_of,
        DATASETS.kind: facts_of,
        MODELS.kind: usable_family,
    }
    if check := checks.get(catalogue.kind):
        check(name)
    else:
        catalogue[name]


def offers(require: Callable[[Catalogue[Any], str], None]) -> list[Offer]:
    """List what packages offer; each is imported, to know whether it can be taken.

    Args:
        require: Refuses an entry by an InputError, as :func:`require_usable` does.
    """
    return [offer for catalogue in OPEN_CATALOGUES for offer in _offers_to(catalogue, require)]


def _offers_to(
    catalogue: Catalogue[Any], require: Callable[[Catalogue[Any], str], None]
) -> list[Offer]:
    offered = [
        Offer(catalogue.kind, problem.name, problem.package, problem.reason)
        for problem in catalogue.problems
    ]
    for name in catalogue.offered:
        package = catalogue.package(name)
        assert package is not None
        reason = None
        try:
            require(catalogue, name)
        except InputError as error:
            # What it is and whose is said beside it.
            reason = str(error).removeprefix(f"{catalogue.described(name)} ")
        offered.append(Offer(catalogue.kind, name, package, reason))
    return sorted(offered, key=lambda offer: (offer.name, offer.package))
