"""The engines there are, by name."""

from __future__ import annotations

from collections.abc import Callable

from skdtune.engines.engine import Engine, Job, Placement
from skdtune.engines.local import LocalEngine

#: Makes an engine for a job, with the workers that are wanted.
ENGINES: dict[str, Callable[[Job, Placement], Engine]] = {
    "local": LocalEngine,
}
