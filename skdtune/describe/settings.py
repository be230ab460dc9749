"""What all settings have in common: their base class, their canonical form, a choice of stages."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class _Later:
    """Marks a field that came after the first release."""


#: Marks a field that came after the first release, ``Annotated[int, LATER]``: see `canonical`.
LATER = _Later()


class Frozen(BaseModel):
    """Base of all settings: immutable, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    of_first_release: ClassVar[bool] = False
    """The settings were there in release 0.1.0, so that canonical forms hold all their keys."""

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Say nothing of a later field that nobody has set: who reads this may not know of it."""
        plain: dict[str, Any] = serialize(self)
        unset = {
            name
            for name, field in type(self).model_fields.items()
            if LATER in field.metadata
            and getattr(self, name) == field.get_default(call_default_factory=True)
        }
        return {name: value for name, value in plain.items() if name not in unset}


def canonical(settings: Frozen) -> dict[str, Any]:
    """Return settings as the plain data that hashes are taken of.

    A key that came after the first release stands in it only where it differs from its default,
    and so does every key of settings that came later: a hash changes with what is trained, and
    not with what else could be.
    """
    plain: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        is_later = not is_of_first_release(type(settings)) or LATER in field.metadata
        # Without its name nobody could tell which settings these are.
        is_needed = name in ("name", "type") or field.is_required()
        if is_needed or not is_later or value != field.get_default(call_default_factory=True):
            plain[name] = canonical(value) if isinstance(value, Frozen) else None
    rest = {name for name, value in plain.items() if value is None}
    plain |= settings.model_dump(mode="json", include=rest)
    for name in rest:
        # Sets have no order, and another one in every process.
        if isinstance(getattr(settings, name), (set, frozenset)):
            plain[name] = sorted(plain[name], key=repr)
    return plain


def is_of_first_release(settings: type[Frozen]) -> bool:
    """Tell whether a class of settings was there in release 0.1.0."""
    # Not inherited: what derives from old settings is new. And nobody else was there.
    is_ours = settings.__module__.partition(".")[0] == __name__.partition(".")[0]
    return is_ours and bool(vars(settings).get("of_first_release"))


def encode_stages(stages: tuple[int, ...]) -> str:
    """Write a choice of stages as the one word that the storage keeps, for example ``1+3``."""
    return "+".join(str(stage) for stage in stages)


def _decode_stages(value: Any) -> Any:
    """Read ``"1+3"`` as ``(1, 3)``; anything else is left for the validation to judge."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"must be a list of stages: [{value}]")
    if isinstance(value, str) and all(part.isdigit() for part in value.split("+")):
        return tuple(map(int, value.split("+")))
    # After this function the value no longer counts as JSON, where a list may be a tuple.
    return tuple(value) if isinstance(value, list) else value


Stages = Annotated[tuple[int, ...], BeforeValidator(_decode_stages)]
