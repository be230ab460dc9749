"""The search space: ranges and choices, each named by the dotted path of the field it sets.

A parameter with a ``when`` is *conditional*: while another parameter's value switches it off it
is not sampled at all, so that the sampler never learns from a value that had no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from skdtune.describe.settings import Frozen, encode_stages

Scalar = bool | int | float | str


class Suggester(Protocol):
    """What a search space needs of a trial; ``optuna.Trial`` is one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float:
        """Suggest a number of a closed interval."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = ...) -> int:
        """Suggest a whole number of a closed interval."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Suggest one of the choices."""


class Condition(Frozen):
    """What another parameter's value must be for a parameter to matter."""

    min_size: int = Field(ge=1)
    """The other parameter is a choice of stages with at least so many of them."""


class Param(Frozen):
    """Base of all ranges and choices."""

    when: dict[str, tuple[Scalar, ...] | Condition] = Field(default={})
    """Other parameters by path, each with the values that keep this one alive."""

    reason: str = ""
    """Why the range is what it is; shown by ``create-study --dry-run``."""

    def is_active(self, params: Mapping[str, Any]) -> bool:
        """Tell whether this parameter matters, given the values of those it depends on."""
        for path, wanted in self.when.items():
            if path not in params:
                return False
            value = params[path]
            # A choice of stages is a word where it is searched, and a list where it is fixed.
            if isinstance(value, list):
                value = encode_stages(tuple(value))
            if isinstance(wanted, Condition):
                is_wanted = len(str(value).split("+")) >= wanted.min_size
            else:
                is_wanted = value in wanted
            if not is_wanted:
                return False
        return True


class _Range(Param):
    """A closed interval."""

    low: float
    """Smallest value."""

    high: float
    """Largest value."""

    log: bool = False
    """Sample evenly in the logarithm."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(
                f"low must be below high, received low={self.low:g} and high={self.high:g}"
            )
        if self.log and self.low <= 0:
            raise ValueError(
                f"a logarithmic range must start above zero, received low={self.low:g}"
            )
        return self

    def examples(self) -> tuple[Scalar, ...]:
        """Return the values that must be valid for all to be: the ends."""
        return (self.low, self.high)

    def contains(self, value: Any) -> bool:
        """Tell whether a value lies in the range."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high

    def as_stored(self, value: Any) -> float | None:
        """Return a value as the storage keeps it, None if it is none of the range."""
        return float(value) if self.contains(value) else None

    def describe(self) -> str:
        """Write the range for a table."""
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


class FloatRange(_Range):
    """Numbers of a closed interval."""

    type: Literal["float"] = "float"
    """Kind of the parameter."""

    def suggest(self, path: str, trial: Suggester) -> float:
        """Ask the sampler for a value."""
        return trial.suggest_float(path, self.low, self.high, log=self.log)


class IntRange(_Range):
    """Whole numbers of a closed interval."""

    type: Literal["int"]
    """Kind of the parameter."""

    low: int
    """Smallest value."""

    high: int
    """Largest value."""

    def suggest(self, path: str, trial: Suggester) -> int:
        """Ask the sampler for a value."""
        return trial.suggest_int(path, self.low, self.high, log=self.log)

    def contains(self, value: Any) -> bool:
        """Tell whether a value is a whole number of the range."""
        return super().contains(value) and value == int(value)

    def as_stored(self, value: Any) -> int | None:
        """Return a whole number as the storage keeps it, None if it is none of the range."""
        return int(value) if self.contains(value) else None

    def describe(self) -> str:
        """Write the range for a table."""
        return f"{super().describe()}, whole"


class _Categorical(Param):
    """One of several values without an order."""

    def options(self) -> tuple[Scalar, ...]:
        """Return the values as the storage keeps them."""
        raise NotImplementedError

    def suggest(self, path: str, trial: Suggester) -> Scalar:
        """Ask the sampler for a value."""
        value: Scalar = trial.suggest_categorical(path, self.options())
        return value

    def examples(self) -> tuple[Scalar, ...]:
        """Return the values that must be valid for all to be: each."""
        return self.options()

    def contains(self, value: Any) -> bool:
        """Tell whether a value is one of the options."""
        return value in self.options()

    def as_stored(self, value: Any) -> Scalar | None:
        """Return the option that a value is, None if it is none."""
        # True equals 1, and is another choice.
        equal = [option for option in self.options() if option == value]
        return next((o for o in equal if isinstance(o, bool) is isinstance(value, bool)), None)

    def describe(self) -> str:
        """Write the options for a table."""
        return " | ".join(map(str, self.options()))


class Choice(_Categorical):
    """One of several values without an order."""

    type: Literal["choice"]
    """Kind of the parameter."""

    choices: tuple[Scalar, ...] = Field(min_length=1)
    """The values."""

    def options(self) -> tuple[Scalar, ...]:
        """Return the values."""
        return self.choices


class StageSubsets(_Categorical):
    """Every non-empty subset of a backbone's stages, as one categorical.

    One categorical has no infeasible point, which three yes-or-no parameters would have, and no
    false order, which an integer code would have.
    """

    type: Literal["stages"]
    """Kind of the parameter."""

    of: tuple[int, ...] | None = None
    """Stages to choose from; default all that the backbone offers."""

    def options(self) -> tuple[str, ...]:
        """Return the subsets as the storage keeps them: ``1``, ``2``, ``1+2``, ..."""
        stages = self.of or ()
        sizes = range(1, len(stages) + 1)
        return tuple(encode_stages(c) for size in sizes for c in combinations(stages, size))

    def as_stored(self, value: Any) -> Scalar | None:
        """Return a subset as its word; it may be given as a list, one stage as its number."""
        stages = [value] if isinstance(value, int) else value
        if isinstance(stages, list) and all(isinstance(stage, int) for stage in stages):
            value = encode_stages(tuple(sorted(set(stages))))
        return super().as_stored(value)


AnyParam = Annotated[FloatRange | IntRange | Choice | StageSubsets, Field(discriminator="type")]
SearchSpace = dict[str, AnyParam]


def sampling_order(space: Mapping[str, Param]) -> list[str]:
    """Order the parameters so that each comes after those its ``when`` asks about.

    Raises:
        ValueError: If a ``when`` leads back to the parameter itself.
    """
    order: list[str] = []
    open_paths: list[str] = []

    def visit(path: str) -> None:
        if path in order:
            return
        if path in open_paths:
            raise ValueError(f"{path}: its 'when' leads back to itself")
        open_paths.append(path)
        for parent in space[path].when:
            if parent in space:
                visit(parent)
        open_paths.pop()
        order.append(path)

    for path in space:
        visit(path)
    return order


def sample(
    space: SearchSpace, trial: Suggester, fixed: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Scalar]:
    """Ask a trial for every active parameter; those that a choice switches off are left out.

    Args:
        space: Parameters by path.
        trial: Who suggests.
        fixed: Values of the fields that are not searched, for conditions that name them.
    """
    params: dict[str, Scalar] = {}
    for path in sampling_order(space):
        if space[path].is_active({**fixed, **params}):
            params[path] = space[path].suggest(path, trial)
    return params
