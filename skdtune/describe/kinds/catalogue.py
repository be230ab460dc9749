"""The kinds of study there are, by the field of the spec that holds their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skdtune.describe.kinds.final_evaluation import FinalEvaluation
from skdtune.describe.kinds.kind import Kind
from skdtune.describe.kinds.search import Search

#: A spec of which none of these fields is set is a search.
KINDS: dict[str, type[Kind]] = {"evaluation": FinalEvaluation}


def kind_of(settings: Mapping[str, Any]) -> Kind:
    """Return the kind of a study.

    Args:
        settings: The settings of each kind, by their field of the spec; None for all others.
    """
    for field, kind in KINDS.items():
        if settings.get(field) is not None:
            return kind(settings[field])  # type: ignore[call-arg]
    return Search()


def settings_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of a kind in a spec as plain data; empty for a search."""
    found = (raw.get(field) for field in KINDS)
    return next((settings for settings in found if isinstance(settings, Mapping)), {})


def is_search(raw: Mapping[str, Any]) -> bool:
    """Tell whether a spec as plain data, which nobody has validated, is that of a search."""
    return not any(raw.get(field) for field in KINDS)


def picks_best(raw: Mapping[str, Any]) -> bool:
    """Tell whether the trial of the highest value is a result, by a spec as plain data."""
    kinds = [kind for field, kind in KINDS.items() if raw.get(field)]
    return (kinds or [Search])[0].picks_best
