"""A catalogue: what a study may name, built in or offered by an installed package.

Nothing is imported before it is asked for, so that knowing all names costs nothing. A study holds
names and never a path: what is imported for a name, this project or an installed package says.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from skdtune.errors import InputError, in_one_line

Entry = TypeVar("Entry")


@dataclass(frozen=True, order=True)
class Package:
    """An installed package that offers something."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Problem:
    """Something that a package offers and that cannot be taken."""

    name: str
    package: Package
    reason: str


class Catalogue(Generic[Entry]):
    """The entries of one kind by name, the built-in ones first and in their order.

    Args:
        kind: What people call one of them: ``method``.
        built_in: For each name the entry, or ``module:attribute`` of it.
        group: Entry points that packages offer more of them under.
    """

    def __init__(
        self, kind: str, built_in: Mapping[str, Entry | str], group: str | None = None
    ) -> None:
        self.kind = kind
        self.group = group
        self.built_in = built_in
        """What this project has itself, by name; an entry or where it is."""

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        yield from self.built_in
        yield from self._offered

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such an entry."""
        return name in self.built_in or name in self._offered

    def __len__(self) -> int:
        """Count the entries."""
        return len(self.built_in) + len(self._offered)

    def __getitem__(self, name: str) -> Entry:
        """Return an entry; what it needs is imported now.

        Raises:
            KeyError: If there is none of this name.
            InputError: If a package offers it, and it cannot be imported.
        """
        if name in self.built_in:
            entry = self.built_in[name]
            return cast(Entry, load_target(entry) if isinstance(entry, str) else entry)
        return cast(Entry, imported(self.described(name), self._offered[name].load))

    def described(self, name: str) -> str:
        """Say what an entry is and whose: ``the method 'my_kd' of the package my-kd 1.2``."""
        package = self.package(name)
        return f"the {self.kind} {name!r}" + (f" of the package {package}" if package else "")

    def package(self, name: str) -> Package | None:
        """Return the package that offers an entry; None for a built-in or unknown one."""
        point = self._offered.get(name)
        return None if point is None else package_of(point)

    @property
    def homes(self) -> frozenset[str]:
        """The top-level modules that packages offer entries in, by name; none is imported."""
        targets = (point.value.partition(":")[0] for point in self._offered.values())
        return frozenset(target.partition(".")[0].strip() for target in targets)

    @property
    def offered(self) -> tuple[str, ...]:
        """The names that packages add, in alphabetical order."""
        return tuple(self._offered)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What packages offer under a name that is taken: nobody can tell which is meant."""
        problems = []
        for point in self._points:
            others = [other for other in self._points if other.name == point.name]
            if point.name in self.built_in:
                article = "an" if self.kind[0] in "aeiou" else "a"
                reason = f"skdtune has {article} {self.kind} of this name itself"
            elif len(others) > 1:
                names = " and ".join(sorted(str(package_of(other)) for other in others))
                reason = f"{names} both offer it"
            else:
                continue
            problems.append(Problem(point.name, package_of(point), reason))
        return tuple(problems)

    @cached_property
    def _points(self) -> tuple[EntryPoint, ...]:
        if self.group is None:
            return ()
        points = entry_points(group=self.group)
        return tuple(sorted(points, key=lambda point: (point.name, package_of(point))))

    @cached_property
    def _offered(self) -> dict[str, EntryPoint]:
        taken = {problem.name for problem in self.problems}
        return {point.name: point for point in self._points if point.name not in taken}


def package_of(point: EntryPoint) -> Package:
    """Return the package that an entry point belongs to."""
    if point.dist is None:
        return Package("unknown", "unknown")
    return Package(point.dist.name, point.dist.version)


def imported(what: str, load: Callable[[], Any]) -> Any:
    """Return what an import gives that a package may have spoilt.

    Args:
        what: What is imported, for the message.
        load: Imports it.

    Raises:
        InputError: If it fails, in one line.
    """
    try:
        return load()
    # Nor may a module end the program because it was looked at.
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{what} cannot be imported: {type(error).__name__}: {in_one_line(error)}"
        ) from error


def load_target(target: str) -> Any:
    """Import what a catalogue line, or settings, name as ``module:attribute``.

    Raises:
        Exception: Whatever the module raises; AttributeError if it has no such attribute.
    """
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
