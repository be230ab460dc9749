"""What a hook leaves with a trial that ends, whoever wrote the hook."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from skdtune.errors import in_one_line
from skdtune.worker.endings import Ending
from skdtune.worker.hooks.hook import Hook

_OWN_PACKAGE = __name__.partition(".")[0]


def attributes_left(
    hook: Hook, ending: Ending, taken: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Ask a hook what to leave with a trial; one of a package may fail, and the trial may not.

    Args:
        hook: The hook.
        ending: How the trial ended.
        taken: Attributes that the trial has already, which no hook of a package replaces.

    Returns:
        The user and the system attributes, and what was wrong with them; empty if nothing was.
    """
    if type(hook).__module__.partition(".")[0] == _OWN_PACKAGE:
        return *hook.attributes(ending), ""
    name = f"the hook {type(hook).__module__}.{type(hook).__qualname__}"
    try:
        user, system = (dict(left) for left in hook.attributes(ending))
        json.dumps([user, system], allow_nan=False)
    except Exception as error:
        return {}, {}, f"{name} leaves nothing: {type(error).__name__}: {in_one_line(error)}"
    ours = sorted(key for key in {*user, *system} if key in taken or key.startswith("skdtune:"))
    for key in ours:
        user.pop(key, None)
        system.pop(key, None)
    return user, system, f"{name} may not leave {', '.join(ours)}" if ours else ""
