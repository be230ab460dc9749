"""The methods of the catalogue as tests try them: nothing is added here for a new one.

A case is a method configuration with a readable name: each settings class with its defaults, with
every other value of every choice, with a weight of zero, and beside others that can share its
batches. The networks that teach are written by the test (see ``network_cases.py``).
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from skdtune.describe.method_config import LABEL_TERMS, PLAIN_LABEL, SETTINGS, MethodConfig
from skdtune.describe.settings import Stages, encode_stages
from skdtune.describe.term_config import TaughtTermConfig, TermConfig

#: Stands for the frozen network of a method that is taught, which a test writes for its network.
NO_TEACHER = {"teacher": "written by the test", "teacher_sha256": "0" * 64}
#: The stages that are tried: one, and more than one; every network with three stages has both.
STAGES = ((1,), (1, 2))


@dataclass(frozen=True)
class Variant:
    """The settings of one method, and what they differ in from its defaults."""

    method: str
    settings: TermConfig
    changed: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        """Return a name for a test."""
        changes = (f"{field}={_word(value)}" for field, value in self.changed)
        return ":".join([self.method, *changes])

    @property
    def config(self) -> MethodConfig:
        """The method alone: beside the plain label term, or as the label term."""
        return together([self])


def defaults(method: str) -> Variant:
    """Return a method as its settings are if nobody says anything."""
    return _variant(method)


def choices(method: str) -> list[Variant]:
    """Return a method with every value of every choice that is not the default, one at a time.

    Where stages can be chosen, the other choices are tried on several: what makes one teacher of
    them has nothing to choose from with one. Of a whole number, the smallest one is tried.
    """
    default, several = defaults(method).settings, _several_stages(method)
    variants = [_variant(method, **{name: stages}) for name in several for stages in STAGES]
    for name, field in SETTINGS[method].model_fields.items():
        bounds = [item.ge for item in field.metadata if hasattr(item, "ge")]
        values = bounds if field.annotation is int else _values(field.annotation)
        variants += [
            _variant(method, **several, **{name: value})
            for value in values
            if value != getattr(default, name)
        ]
    return variants


def switched_off(method: str) -> Variant | None:
    """Return a method with all its weights at zero; None if it has no weight."""
    weights = [name for name in SETTINGS[method].model_fields if name.endswith("weight")]
    off = dict.fromkeys(weights, 0.0)
    return _variant(method, **_several_stages(method), **off) if weights else None


def together(variants: Iterable[Variant]) -> MethodConfig:
    """Return a method of several terms."""
    terms = {("label" if v.method in LABEL_TERMS else v.method): v.settings for v in variants}
    return MethodConfig(**terms)


def with_teachers(method: MethodConfig, settings: Mapping[str, Any]) -> MethodConfig:
    """Return a method with some settings of the terms changed that have a trained teacher."""
    changed = {name: term.model_copy(update=settings) for name, term in method.teachers.items()}
    return method.model_copy(update=changed)


def combinations() -> Iterator[tuple[Variant, ...]]:
    """Yield terms that can share their batches: each meets another one at least.

    The terms that take any batch are dealt out to the label terms; each that needs batches of its
    own gets one of them.
    """
    distilling = [defaults(name) for name in SETTINGS if name not in LABEL_TERMS]
    plain = [v for v in distilling if v.settings.batch_plan == "plain"]
    planned = [v for v in distilling if v.settings.batch_plan != "plain"]
    share = -(-len(plain) // len(LABEL_TERMS))
    for number, label in enumerate(LABEL_TERMS):
        yield (defaults(label), *plain[number * share : (number + 1) * share])
    yield from zip(planned, itertools.cycle(plain), strict=False)


def _variant(method: str, **changes: Any) -> Variant:
    settings = SETTINGS[method]
    taught = NO_TEACHER if issubclass(settings, TaughtTermConfig) else {}
    return Variant(method, settings(**taught, **changes), tuple(changes.items()))


def _several_stages(method: str) -> dict[str, Any]:
    fields = SETTINGS[method].model_fields
    return {name: STAGES[-1] for name, field in fields.items() if _is_stages(field.annotation)}


def _values(annotation: Any) -> list[Any]:
    """Return what a field offers to choose from: literals, true and false."""
    if annotation is bool:
        return [True, False]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return [value for inner in get_args(annotation) for value in _values(inner)]
    return []


def _is_stages(annotation: Any) -> bool:
    plain = get_args(Stages)[0]
    return annotation in (Stages, plain) or Stages in get_args(annotation)


def _word(value: Any) -> str:
    return encode_stages(value) if isinstance(value, tuple) else str(value)


#: Every method as it is by default, by the name it has in the catalogue.
DEFAULTS: Mapping[str, Variant] = {name: defaults(name) for name in SETTINGS}

#: Every method with each of its choices, one at a time.
VARIANTS: Mapping[str, Variant] = {
    str(variant): variant for name in SETTINGS for variant in (defaults(name), *choices(name))
}

#: Several methods in one training.
COMBINED: Mapping[str, MethodConfig] = {
    "+".join(v.method for v in variants if v.method != PLAIN_LABEL): together(variants)
    for variants in combinations()
}

#: Every method as it is by default and beside others.
PLAINLY: Mapping[str, MethodConfig] = {
    **{name: variant.config for name, variant in DEFAULTS.items()},
    **COMBINED,
}

#: Everything that is tried.
CASES: Mapping[str, MethodConfig] = {
    **{name: variant.config for name, variant in VARIANTS.items()},
    **COMBINED,
}

#: Every method that has weights, with all of them at zero, alone.
SWITCHED_OFF: Mapping[str, Variant] = {
    name: off for name in SETTINGS if (off := switched_off(name)) is not None
}
