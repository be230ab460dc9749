"""The class of an engine, by its name in the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from skdtune.catalogues.engines import ENGINES
from skdtune.engines.engine import Engine, Job, Placement
from skdtune.errors import InputError

#: What people get who name none.
DEFAULT_ENGINE = "local"


def engine_named(name: str) -> Callable[[Job, Placement], Engine]:
    """Return what makes an engine for a job, with the workers that are wanted.

    Raises:
        InputError: If there is none of this name, or what a package offers is no engine.
    """
    if name not in ENGINES:
        raise InputError(f"no engine is called {name!r}; there are: {', '.join(ENGINES)}")
    made = ENGINES[name]
    promised = [method for method in vars(Engine) if not method.startswith("_")]
    missing = [method for method in promised if not hasattr(made, method)]
    if not isinstance(made, type) or missing:
        lacks = f"it lacks {', '.join(missing)}" if missing else "it is no class"
        raise InputError(f"{ENGINES.described(name)} is none: {lacks}")
    return cast(Callable[[Job, Placement], Engine], made)
