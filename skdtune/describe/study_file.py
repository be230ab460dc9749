"""A study as it is written down. YAML is data here: a safe loader, no tags, no doubled keys.

What is read is bounded before it is believed: a page of aliases can stand for more values than any
machine holds, and whoever lays out a study with a thousand settings needs none of that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from skdtune.errors import SpecError

#: Bytes of the largest file that is read. The longest preset has some two thousand.
_MOST_BYTES = 256 * 1024
#: Values of a text, its keys among them, each alias counted as all that it stands for.
_MOST_VALUES = 100_000
#: Levels of a text. A study has six.
_MOST_LEVELS = 32
#: Characters of a number. Python refuses decimal ones of some thousands; YAML has others
#: (``1:30:00``), and those take it long.
_LONGEST_NUMBER = 1000


@dataclass(frozen=True)
class StudyFile:
    """What a study file says, before anything that it extends is laid below it."""

    path: Path
    """Where it lies, or would lie: a preset that is composed has a name and no file."""
    content: Mapping[str, Any]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of keys and values.

    Raises:
        SpecError: One line with the file and, where YAML knows it, the line.
    """
    try:
        content = load_yaml(read_text(path))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise SpecError(f"{path.name}, line {line}: {error.problem}") from None
    except (OSError, *YAML_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"{path}: cannot be read as YAML: {reason}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SpecError(f"{path.name}: expected a mapping of keys to values")
    return content


def read_text(path: Path) -> str:
    """Read a file of a sensible size.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no text, or too large.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES // 1024} KiB, which no study is")
    return content.decode("utf-8")


def load_yaml(text: str) -> Any:
    """Read a text as YAML; what it cannot be read by is one of ``YAML_ERRORS``."""
    return yaml.load(text, Loader=_Loader)


class ExcessError(yaml.constructor.ConstructorError):
    """A text is valid YAML and stands for more than is read."""


# PyYAML lets the errors of int("x") or datetime(2001, 99, 99) through as they are.
YAML_ERRORS = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Loader(yaml.SafeLoader):
    """Safe YAML of bounded size that reads ``1e-3`` as a number and refuses doubled keys."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0
        self._extents: dict[yaml.Node, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a value, and count values and levels of what it stands for.

        Nothing is constructed before all is composed.
        """
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise ExcessError(None, None, f"more than {_MOST_LEVELS} levels of nesting", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._level -= 1
        if node is None:
            return None
        is_alias = node in self._extents
        if not is_alias and isinstance(node, yaml.CollectionNode) and node.end_mark is None:
            raise ExcessError(None, None, "an alias stands for what it is a part of", mark)
        if not is_alias:
            self._extents[node] = self._extent(node)
        values, levels = self._extents[node]
        if values > _MOST_VALUES:
            problem = f"more than {_MOST_VALUES} values, aliases counted"
            raise ExcessError(None, None, problem, mark)
        if self._level + levels > _MOST_LEVELS:
            raise ExcessError(None, None, f"more than {_MOST_LEVELS} levels of nesting", mark)
        return node

    def _extent(self, node: yaml.Node) -> tuple[int, int]:
        """Count the values and the levels of a value whose parts were counted."""
        if isinstance(node, yaml.ScalarNode):
            is_number = node.tag.endswith((":int", ":float"))
            if is_number and len(node.value) > _LONGEST_NUMBER:
                problem = f"a number of more than {_LONGEST_NUMBER} characters"
                raise ExcessError(None, None, problem, node.start_mark)
            return 1, 1
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        counted = [self._extents[part] for part in parts]
        values = 1 + sum(values for values, _ in counted)
        return values, 1 + max((levels for _, levels in counted), default=0)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    # No two of its parts can take the same characters: a long text is read in one go.
    re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} stands twice", key_node.start_mark
            )
        seen.add(key)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
