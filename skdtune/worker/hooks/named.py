"""The hooks that accompany the trials of a study: the built-in ones, and those that it names."""

from __future__ import annotations

from collections.abc import Sequence

from skdtune.catalogues.hooks import HOOKS
from skdtune.errors import InputError
from skdtune.worker.hooks.hook import Hook


def hooks_of(names: Sequence[str]) -> list[type[Hook]]:
    """Return the classes of the hooks in the order in which they are called.

    Args:
        names: What the study names.

    Raises:
        InputError: If no package on this machine offers one, or what it offers is no hook.
    """
    built_in = [name for name in HOOKS if name not in HOOKS.offered]
    return [hook_named(name) for name in (*built_in, *names)]


def hook_named(name: str) -> type[Hook]:
    """Return the class of a hook.

    Raises:
        InputError: If nobody offers it on this machine, or what is offered is no hook.
    """
    if name not in HOOKS:
        raise InputError(
            f"the study names the hook {name!r}, which no package on this machine offers; install "
            "it here, too, then `skdtune extensions` lists it"
        )
    made = HOOKS[name]
    if not (isinstance(made, type) and issubclass(made, Hook)):
        raise InputError(
            f"{HOOKS.described(name)} is none: it does not derive "
            "from skdtune.worker.hooks.hook.Hook"
        )
    return made
