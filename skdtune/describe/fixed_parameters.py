"""A person sets a field that is searched: what becomes of the search.

``--fix`` sets it and takes it out of the search; ``--set`` moves trial 0 alone, which is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from skdtune.describe import dotted
from skdtune.describe.space import AnyParam, Condition, Param
from skdtune.errors import SpecError


def fix(raw: Mapping[str, Any], fixed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Set fields of a study and take them out of its search; others are only set.

    A parameter that matters for other values of them alone would never be sampled again: it is
    taken out, too.

    Args:
        raw: The study as plain data.
        fixed: The values by dotted path.

    Returns:
        The study, and a sentence on each parameter that is not searched any more either.

    Raises:
        SpecError: If a path names no single field.
    """
    search = raw.get("search")
    searched = dict(search) if isinstance(search, Mapping) else {}
    values = {}
    for path, value in fixed.items():
        _require_field(path, searched)
        param = searched.pop(path, None)
        # YAML takes the choice of one stage for its number.
        is_stage = isinstance(param, Mapping) and param.get("type") == "stages"
        values[path] = [value] if is_stage and isinstance(value, int) else value
        raw = dotted.put(raw, path, values[path])
    without = _never_sampled(searched, values)
    for path in without:
        del searched[path]
    notes = [f"{path} is not searched either: {why}" for path, why in without.items()]
    return {**raw, **({"search": searched} if isinstance(search, Mapping) else {})}, notes


def still_searched(
    search: Mapping[str, AnyParam],
    base: Mapping[str, Any],
    overrides: Sequence[tuple[str, Any]],
) -> list[str]:
    """Say which fields that were set are searched all the same.

    Args:
        search: The parameters by path.
        base: Those of trial 0.
        overrides: What was set, as dotted keys and values; a key may be a whole section.
    """
    paths: dict[str, Any] = {}
    for key, value in overrides:
        if key.partition(".")[0] != "search":
            paths |= dotted.flatten(dotted.nest(key, value))
    notes = []
    for path in (path for path in paths if path in search):
        value = written(base.get(path, paths[path]))
        start = f"trial 0 starts from {value}, and " if path in base else ""
        notes.append(
            f"{start}{path} is still searched over [{search[path].describe()}]; to keep it: "
            f"--fix {path}={value}"
        )
    return notes


def written(value: Any) -> str:
    """Write a value as a person types it behind ``KEY=``."""
    return value if isinstance(value, str) else json.dumps(value)


def conditions(param: Param) -> str:
    """Say when a parameter matters."""
    return " and ".join(
        f"{parent} has at least {wanted.min_size} stages"
        if isinstance(wanted, Condition)
        else f"{parent} is {' or '.join(map(written, wanted))}"
        for parent, wanted in param.when.items()
    )


def _require_field(path: str, searched: Mapping[str, Any]) -> None:
    if path.partition(".")[0] == "search":
        raise SpecError(
            f"--fix {path}: name the field itself, for example --fix optimizer.lr=0.05"
        )
    below = [name for name in searched if name.startswith(f"{path}.")]
    if below:
        raise SpecError(
            f"--fix {path}: it has several searched fields; fix them one by one: "
            f"{', '.join(below)}"
        )


def _never_sampled(searched: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that fixed values switch off for good, each with the reason."""
    off: dict[str, str] = {}
    for _ in searched:
        for path, raw in searched.items():
            param = _readable(raw)
            if path in off or param is None:
                continue
            # One that depends on a parameter that is gone would be read as depending on its value.
            gone = [parent for parent in param.when if parent in off]
            unmet = {
                parent: wanted
                for parent, wanted in param.when.items()
                if parent in fixed
                and not Param(when={parent: wanted}).is_active({parent: fixed[parent]})
            }
            if gone or unmet:
                off[path] = f"it matters only where {conditions(param)}"
    return off


def _readable(raw: Any) -> Param | None:
    """Read when a parameter matters; one that cannot be read is refused later, in full."""
    when = raw.get("when", {}) if isinstance(raw, Mapping) else {}
    try:
        return Param.model_validate_json(json.dumps({"when": when}, default=str))
    except (ValidationError, TypeError, ValueError):
        return None
