"""The hooks that a study names: what installed packages offer to accompany its trials."""

from __future__ import annotations

from collections.abc import Sequence

from skdtune.catalogues.hooks import HOOKS
from skdtune.errors import SpecError


def require_offered(hooks: Sequence[str], source: str) -> None:
    """Refuse names that no installed package offers; nothing is imported.

    Asked where a study is written, and not where a stored one is read: its results can be looked
    at on a machine without the packages that its workers need.

    Args:
        hooks: The names.
        source: What an error names as the place.

    Raises:
        SpecError: If one is built in, named twice, or not offered.
    """
    problems = {problem.name: problem.reason for problem in HOOKS.problems}
    for name in hooks:
        if name in HOOKS and name not in HOOKS.offered:
            reason = "is built in and accompanies every trial; leave it out"
        elif hooks.count(name) > 1:
            reason = "is named twice"
        elif name in problems:
            reason = f"cannot be told: {problems[name]}"
        elif name not in HOOKS:
            reason = f"is offered by no installed package; offered: {_list_offered()}"
        else:
            continue
        raise SpecError(f"{source}: hooks: {name!r} {reason}")


def _list_offered() -> str:
    return ", ".join(HOOKS.offered) or "none (`skdtune extensions`)"
