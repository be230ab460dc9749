"""Products of parameters: every pair of values is always tried, the rest of the product on demand.

``@pytest.mark.product(method=CASES, network=NETWORKS)`` gives a test the full product of its
axes. Without ``--full``, only so many of its combinations are run that, over all marked tests of
the module, each test meets every value of each of its axes, and each two values of different axes
meet in one of the tests. An axis may be one of the fixtures that make a storage of each kind.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from types import ModuleType

import pytest

#: Fixtures of which an axis gives the parameter.
FIXTURES = {"any_url", "ready_url"}

#: The axes of each test; the values of an axis are hashable, and equal values are the same one.
Axes = Mapping[str, Iterable[object]]
Combination = tuple[object, ...]


def pairwise(tests: Mapping[str, Axes]) -> dict[str, set[Combination]]:
    """Choose combinations of each test until all pairs are covered; the same ones every time."""
    pairs = {
        (test, combination): _pairs(test, axes, combination)
        for test, axes in tests.items()
        for combination in itertools.product(*axes.values())
    }
    missing = set().union(*pairs.values())
    chosen: dict[str, set[Combination]] = {test: set() for test in tests}
    while missing:
        # The first of those that cover the most.
        best = max(pairs, key=lambda row: len(pairs[row] & missing))
        missing -= pairs.pop(best)
        chosen[best[0]].add(best[1])
    return chosen


def _pairs(test: str, axes: Axes, combination: Combination) -> set[object]:
    """Return all that meets in a combination; the test is an axis, too."""
    values = [("", test), *zip(axes, combination, strict=True)]
    return set(map(frozenset, itertools.combinations(values, 2)))


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a test that is marked with ``product`` its combinations."""
    axes = _axes(metafunc.function)
    if axes is None:
        return
    chosen = _chosen(metafunc.module)[metafunc.function.__name__]
    combinations = [
        pytest.param(*combination, marks=() if combination in chosen else pytest.mark.full)
        for combination in itertools.product(*axes.values())
    ]
    indirect = [name for name in axes if name in FIXTURES]
    # A mark, since only that keeps pytest from adding the parameters of the fixtures themselves.
    metafunc.definition.add_marker(
        pytest.mark.parametrize(list(axes), combinations, indirect=indirect)
    )


@functools.cache
def _chosen(module: ModuleType) -> dict[str, set[Combination]]:
    found = {name: _axes(function) for name, function in vars(module).items()}
    return pairwise({name: axes for name, axes in found.items() if axes is not None})


def _axes(function: object) -> Axes | None:
    # The marks lie on the function itself: the items of the module are still being made.
    marks = getattr(function, "pytestmark", [])
    return next((mark.kwargs for mark in marks if mark.name == "product"), None)
