"""Dotted paths into nested settings, and the nearest right word for a misspelt one."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union

from pydantic import BaseModel


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that looks most like ``word``, or None if none comes close."""
    matches = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return matches[0] if matches else None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Say which option was probably meant, and all of them when they are few."""
    options = sorted(options)
    near = nearest(word, options)
    hint = f"did you mean {near!r}? " if near else ""
    listed = ", ".join(options[:16]) + (", ..." if len(options) > 16 else "")
    return f"{hint}(allowed: {listed})"


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``over`` on ``base`` key by key; a null removes an inherited default.

    A section whose ``name`` or ``type`` changes (another pruner, another label term) is replaced
    whole, because the settings of the old kind mean nothing to the new one.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and _same_kind(key, old, value):
            merged[key] = merge(old, value)
        elif isinstance(value, Mapping):
            merged[key] = merge({}, value)
        else:
            merged[key] = value
    return merged


#: Sections with settings in common for all their kinds: a new ``name`` keeps the other settings.
_SHARED_SETTINGS = ("data", "model")


def _same_kind(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if key in _SHARED_SETTINGS:
        return True
    return all(mark not in new or old.get(mark) == new[mark] for mark in ("name", "type"))


def nest(path: str, value: Any) -> dict[str, Any]:
    """Turn ``a.b`` and a value into ``{"a": {"b": value}}``.

    What follows ``search.`` is one key, because a parameter is named by its own dotted path; only
    the last word may name a field of its range (``search.optimizer.lr.low``).
    """
    head, _, rest = path.partition(".")
    if not rest:
        return {head: value}
    if head != "search":
        return {head: nest(rest, value)}
    parameter, _, field = rest.rpartition(".")
    if field in RANGE_FIELDS and parameter:
        return {head: {parameter: {field: value}}}
    return {head: {rest: value}}


RANGE_FIELDS = ("type", "low", "high", "log", "choices", "of", "min_size", "when", "reason")


def put(base: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return ``base`` with the field at a dotted path replaced."""
    return merge(base, nest(path, value))


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """List the leaves of nested settings by their dotted paths; an empty mapping is a leaf."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        path = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            flat.update(flatten(item, f"{path}."))
        else:
            flat[path] = item
    return flat


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings classes that an annotation (optional, tagged union) may stand for."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return models_of(typing.get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [model for arg in typing.get_args(annotation) for model in models_of(arg)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return []


def field_names(model: type[BaseModel], path: Iterable[str]) -> set[str]:
    """Return the keys allowed in the section at ``path`` below a settings class.

    A word of the path may also be the tag of a tagged union (``pruner.asha``), as in the
    locations of validation errors; it then picks the class of that tag.
    """
    models = [model]
    for key in path:
        below: list[type[BaseModel]] = []
        for fields in (m.model_fields for m in models if key in m.model_fields):
            annotation = fields[key].annotation
            # Of a mapping, what it holds.
            is_mapping = typing.get_origin(annotation) is dict
            below += models_of(typing.get_args(annotation)[1] if is_mapping else annotation)
        models = below or [m for m in models if key in _tags(m)] or models
    return {name for inner in models for name in inner.model_fields}


def _tags(model: type[BaseModel]) -> set[str]:
    fields = (model.model_fields.get(mark) for mark in ("name", "type"))
    return {str(tag) for field in fields if field for tag in typing.get_args(field.annotation)}


def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    """List the dotted paths of all leaves below a settings class."""
    paths: set[str] = set()
    for name, field in model.model_fields.items():
        below = models_of(field.annotation)
        if below:
            for inner in below:
                paths |= leaves(inner, f"{prefix}{name}.")
        else:
            paths.add(f"{prefix}{name}")
    return paths
