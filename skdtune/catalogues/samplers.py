"""The samplers there are: for each, the class of its settings, which builds it."""

from __future__ import annotations

from typing import Any

from skdtune.catalogues.catalogue import Catalogue

#: Settings classes by name; each imports Optuna only when it builds.
SAMPLERS: Catalogue[Any] = Catalogue(
    "sampler",
    {
        "tpe": "skdtune.search.samplers.tpe:TpeConfig",
        "random": "skdtune.search.samplers.random:RandomConfig",
    },
)
