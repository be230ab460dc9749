"""The method of a trial: one label term and any number of distillation terms.

The fields are what the catalogue of methods holds, in its order: losses are added up in it.
"""

from __future__ import annotations

from functools import reduce
from inspect import getdoc
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

from pydantic import (
    Field,
    create_model,
    model_validator,
)

from skdtune.catalogues.methods import METHODS
from skdtune.describe import dotted
from skdtune.describe.settings import LATER, Frozen, is_of_first_release
from skdtune.describe.term_config import (
    BatchPlanName,
    LabelTermConfig,
    TaughtTermConfig,
    TermConfig,
)
from skdtune.errors import InputError, in_one_line


class MethodTerms(Frozen):
    """One label term and any number of distillation terms; their losses are added."""

    of_first_release = True

    label: LabelTermConfig = Field(default_factory=lambda: LABEL_TERMS[PLAIN_LABEL]())
    """The term that learns from the labels."""

    def terms(self) -> dict[str, TermConfig]:
        """Return the settings of the terms that are on, the label term first."""
        chosen = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: term for name, term in chosen.items() if term is not None}

    @property
    def teachers(self) -> dict[str, TaughtTermConfig]:
        """The settings of the terms whose teacher was trained before."""
        terms = self.terms().items()
        return {name: term for name, term in terms if isinstance(term, TaughtTermConfig)}

    @property
    def batch_plan(self) -> BatchPlanName:
        """The batch plan that all terms together need."""
        plans = {name: term.batch_plan for name, term in self.terms().items()}
        return next((plan for plan in plans.values() if plan != "plain"), "plain")

    @property
    def companions(self) -> int:
        """Images of its class beside each image, where the batch plan is ``groups``."""
        return max(term.companions for term in self.terms().values())

    @property
    def images_per_anchor(self) -> int:
        """Images that are trained on for every image of a plain epoch: the cost of an epoch."""
        if self.batch_plan == "groups":
            return 1 + self.companions
        return 1 if self.batch_plan in ("plain", "indexed") else 2

    @model_validator(mode="after")
    def _plans_agree(self) -> MethodTerms:
        plans = {
            name: (term.batch_plan, term.companions)
            for name, term in self.terms().items()
            if term.batch_plan != "plain"
        }
        if len(set(plans.values())) > 1:
            wanted = ", ".join(f"{name} needs {plan}" for name, (plan, _) in plans.items())
            raise ValueError(
                f"method: these cannot share their batches: {wanted}; switch off all but one"
            )
        return self


def settings_of(name: str) -> type[TermConfig]:
    """Return the settings class of a method.

    Raises:
        KeyError: If there is no such method.
        InputError: If it comes from a package that cannot be imported, or is no settings class
            that could be a field of :class:`MethodTerms`.
    """
    settings = METHODS[name]
    problem = ""
    if not (isinstance(settings, type) and issubclass(settings, TermConfig)):
        problem = "is no settings class: derive one from TermConfig"
    elif not isinstance(getattr(settings, "term", None), str):
        problem = "does not name its term: set `term` to 'module:class'"
    elif not name.isidentifier() or name.startswith("_") or _is_taken(name):
        problem = "has a name that is taken, or cannot be a key: take letters, digits and _"
    elif issubclass(settings, LabelTermConfig) and not _is_called(settings, name):
        problem = f"learns from the labels: give it a field name: Literal[{name!r}] = {name!r}"
    elif name in METHODS.offered:
        problem = _why_no_field(settings)
    if problem:
        raise InputError(f"{METHODS.described(name)} {problem}")
    return cast(type[TermConfig], settings)


def _why_no_field(settings: type[TermConfig]) -> str:
    """Say why settings cannot be a part of others, which would break those, too."""
    try:
        kind: Any = settings | None
        probe = create_model("Probe", term=(kind, None))
        probe()
        dotted.leaves(probe)
    except Exception as error:
        return f"has settings that cannot be used: {type(error).__name__}: {in_one_line(error)}"
    return ""


def _is_taken(name: str) -> bool:
    # A name or a type tells which settings others are.
    fields = {*MethodTerms.model_fields, "name", "type"}
    return name in fields or hasattr(MethodTerms, name)


def _is_called(settings: type[LabelTermConfig], name: str) -> bool:
    field = settings.model_fields["name"]
    return get_args(field.annotation) == (name,) and field.default == name


#: Settings classes of all methods that can be taken, by their name.
SETTINGS: dict[str, type[TermConfig]] = {}
#: Why the others, which packages offer, can not.
UNUSABLE: dict[str, str] = {}

for _name in METHODS:
    try:
        SETTINGS[_name] = settings_of(_name)
    except InputError as _error:
        UNUSABLE[_name] = str(_error)

#: Those of the label terms; the first one is the default.
LABEL_TERMS: dict[str, type[Any]] = {
    name: s for name, s in SETTINGS.items() if issubclass(s, LabelTermConfig)
}
#: What a label term is called that only learns from the labels.
PLAIN_LABEL: str = next(iter(LABEL_TERMS))


def _field(settings: type[TermConfig]) -> tuple[Any, Any]:
    """Return type and default of the field of a term that can be switched off."""
    summary = (getdoc(settings) or "").split("\n")[0].rstrip(".")
    field = Field(default=None, description=f"{summary}; null switches it off.")
    # What came after the first release must not change the hashes of studies without it.
    is_first = is_of_first_release(settings)
    kind = settings | None if is_first else Annotated[settings | None, LATER]
    return kind, field


if TYPE_CHECKING:
    MethodConfig = MethodTerms
else:
    MethodConfig = create_model(
        "MethodConfig",
        __base__=MethodTerms,
        __module__=__name__,
        __doc__=MethodTerms.__doc__,
        label=(
            Annotated[reduce(or_, LABEL_TERMS.values()), Field(discriminator="name")],
            Field(
                default=LABEL_TERMS[PLAIN_LABEL](),
                description="The term that learns from the labels.",
            ),
        ),
        **{name: _field(s) for name, s in SETTINGS.items() if name not in LABEL_TERMS},
    )
    MethodConfig.of_first_release = True
