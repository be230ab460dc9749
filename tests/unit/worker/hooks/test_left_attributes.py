"""A hook of a package may leave what it likes, and never spoils the trial that it accompanied."""

from __future__ import annotations

from typing import Any

import pytest

from skdtune.queue.events import EventKind
from skdtune.worker.endings import Ending
from skdtune.worker.hooks.hook import Hook
from skdtune.worker.hooks.left_attributes import attributes_left

ENDING = Ending(EventKind.COMPLETE)


class Leaves(Hook):
    def __init__(self, left: Any) -> None:
        self._left = left

    def attributes(self, ending: Ending) -> Any:
        if isinstance(self._left, Exception):
            raise self._left
        return self._left


def test_what_a_hook_leaves_is_kept() -> None:
    assert attributes_left(Leaves(({"a": 1}, {"b": [2]})), ENDING, {"c"}) == (
        {"a": 1},
        {"b": [2]},
        "",
    )


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (RuntimeError("two\nlines"), "RuntimeError: two lines"),
        (None, "TypeError: "),
        (({"a": object()}, {}), "TypeError: Object of type object is not JSON serializable"),
        (({"a": float("nan")}, {}), "ValueError: Out of range float values"),
        (({"a": 1},), "ValueError: not enough values"),
    ],
)
def test_a_hook_that_fails_leaves_nothing_and_is_named(left: Any, reason: str) -> None:
    user, system, problem = attributes_left(Leaves(left), ENDING, ())
    assert (user, system) == ({}, {})
    assert problem.startswith(f"the hook {__name__}.Leaves leaves nothing: {reason}")


def test_a_hook_replaces_nothing_of_the_trial() -> None:
    hook = Leaves(({"val_accuracy": 1.0, "mine": 2}, {"skdtune:curves": []}))
    assert attributes_left(hook, ENDING, {"val_accuracy"}) == (
        {"mine": 2},
        {},
        f"the hook {__name__}.Leaves may not leave skdtune:curves, val_accuracy",
    )


def test_a_hook_of_ours_is_trusted_and_its_fault_is_seen() -> None:
    class Ours(Leaves):
        pass

    Ours.__module__ = "skdtune.worker.hooks.ours"
    assert attributes_left(Ours(({"a": 1}, {})), ENDING, {"a"}) == ({"a": 1}, {}, "")
    with pytest.raises(RuntimeError):
        attributes_left(Ours(RuntimeError()), ENDING, ())
