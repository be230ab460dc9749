"""The front door for packages: every name is there, for a program and for a type checker."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, get_origin

import pytest

from skdtune import extending


@pytest.mark.parametrize("name", extending.__all__)
def test_a_name_of_the_front_door_is_there(name: str) -> None:
    thing = getattr(extending, name)
    # An alias of types has a name that says nothing.
    assert not isinstance(thing, type) or thing.__name__ == name
    assert callable(thing) or get_origin(thing) is Annotated


def test_a_type_checker_sees_the_same_names_in_the_same_places() -> None:
    tree = ast.parse(Path(extending.__file__).read_text())
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("skdtune")
        for alias in node.names
    }
    assert seen == extending._HOMES
    assert sorted(seen) == extending.__all__


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = extending.Nothing  # type: ignore[attr-defined]
