"""The engines there are: what starts workers somewhere, and follows them."""

from __future__ import annotations

from typing import Any

from skdtune.catalogues.catalogue import Catalogue

#: Classes of engines by name; each makes one for a job, with the workers that are wanted.
ENGINES: Catalogue[Any] = Catalogue(
    "engine", {"local": "skdtune.engines.local:LocalEngine"}, "skdtune.engines"
)
