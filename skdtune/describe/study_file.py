"""A study as it is written down. YAML is data here: a safe loader, no tags, no doubled keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from skdtune.errors import SpecError


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
        content = load_yaml(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise SpecError(f"{path.name}, line {line}: {error.problem}") from None
    except (OSError, *YAML_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"{path}: cannot be read as YAML: {reason}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SpecError(f"{path.name}: expected a mapping of keys to values")
    return content


def load_yaml(text: str) -> Any:
    """Read a text as YAML; what it cannot be read by is one of ``YAML_ERRORS``."""
    return yaml.load(text, Loader=_Loader)


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
    """Safe YAML that reads ``1e-3`` as a number and refuses doubled keys."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*([eE][-+]?\d+)|\.\d+([eE][-+]?\d+)?)$"),
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
