"""The pruners there are: for each, the class of its settings, which builds it."""

from __future__ import annotations

from typing import Any

from skdtune.catalogues.catalogue import Catalogue

#: Settings classes by name; each imports Optuna only when it builds.
PRUNERS: Catalogue[Any] = Catalogue(
    "pruner",
    {
        "none": "skdtune.search.pruners.none:NoPruner",
        "median": "skdtune.search.pruners.median:MedianConfig",
        "asha": "skdtune.search.pruners.asha:AshaConfig",
        "hyperband": "skdtune.search.pruners.hyperband:HyperbandConfig",
    },
)
