"""Which installed packages a study needs: those that offer what it names.

A study names methods, data sets, networks and hooks, and never where they come from. That is noted
beside its spec when it is created, so that it can be told which package a machine lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from skdtune.catalogues.catalogue import Package
from skdtune.catalogues.datasets import DATASETS
from skdtune.catalogues.hooks import HOOKS
from skdtune.catalogues.methods import METHODS
from skdtune.catalogues.models import MODELS, family_of, usable_family
from skdtune.describe.offered import require_usable
from skdtune.describe.space import Choice
from skdtune.describe.spec import StudySpec
from skdtune.errors import InputError

_CATALOGUES = {catalogue.kind: catalogue for catalogue in (METHODS, DATASETS, MODELS, HOOKS)}

#: For each package its ``version``, and what it ``offers`` of what a study names.
Needed = dict[str, dict[str, Any]]

#: Names and versions of packages, and what they offer, as they may stand in a storage.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,79}")
_OFFER = re.compile(r"[\w .+-]{1,120}", re.ASCII)
_MAX_READ = 20


def packages_of(spec: StudySpec) -> Needed:
    """Return the packages that a study needs, with what it takes from each.

    Returns:
        For each package its version here and the ``offers``, such as ``method my_kd``; empty for
        a study that names nothing but what is built in.
    """
    needed: Needed = {}
    for kind, name in names_in(spec):
        package = _CATALOGUES[kind].package(name)
        if package is not None:
            entry = needed.setdefault(package.name, {"version": package.version, "offers": []})
            if (offer := f"{kind} {name}") not in entry["offers"]:
                entry["offers"].append(offer)
    return needed


def names_in(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """Go through all that a study names, as kind and name in the catalogue of that kind."""
    yield DATASETS.kind, spec.data.name
    searched = spec.search.get("model.name")
    chosen = searched.choices if isinstance(searched, Choice) else ()
    for network in (spec.model.name, *chosen):
        yield MODELS.kind, family_of(str(network))
    labels = spec.search.get("method.label.name")
    for name in (spec.method.label.name, *(labels.choices if isinstance(labels, Choice) else ())):
        yield METHODS.kind, str(name)
    for name in spec.method.terms():
        if name != "label":
            yield METHODS.kind, name
    for hook in spec.hooks:
        yield HOOKS.kind, hook


def package_versions(spec: StudySpec) -> dict[str, str]:
    """Return the versions here of the packages that a study needs, by name.

    That of an open family of networks among them: whoever only reads the study does without.
    """
    versions = {name: str(needed["version"]) for name, needed in packages_of(spec).items()}
    package = usable_family(family_of(spec.model.name)).package
    if package is not None and (here := installed_version(package)) is not None:
        versions[package] = here
    return versions


def what_is_missing(stored: Any) -> str:
    """Say what a study needs that is not here; empty if nothing is known to be missing.

    The same name from another package counts as missing: it may be anything.

    Args:
        stored: What :func:`packages_of` said where the study was created; anybody may have
            written it.
    """
    missing = []
    for package, offers in _read(stored).items():
        here = installed_version(package.name)
        if here is None:
            missing.append(
                f"it needs the package {package} ({', '.join(offers)}), which is not installed "
                f"here: pip install '{package.name}=={package.version}'"
            )
        else:
            missing += [p for offer in offers if (p := _problem(offer, package.name, here))]
    return "; ".join(missing)


def other_versions(stored: Any) -> str:
    """Say which packages have another version here than where a study was created."""
    return "; ".join(
        f"it was created with {package}, here is {here}: pip install "
        f"'{package.name}=={package.version}'"
        for package in _read(stored)
        if (here := installed_version(package.name)) not in (None, package.version)
    )


def _read(stored: Any) -> dict[Package, list[str]]:
    """Read what :func:`packages_of` wrote; what nobody should be told to type is left out."""
    packages: dict[Package, list[str]] = {}
    for name, needed in list(stored.items())[:_MAX_READ] if isinstance(stored, Mapping) else ():
        entry = needed if isinstance(needed, Mapping) else {}
        words = (name, entry.get("version"))
        if all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
            offers = entry.get("offers")
            listed = offers[:_MAX_READ] if isinstance(offers, list) else []
            readable = [o for o in listed if isinstance(o, str) and _OFFER.fullmatch(o)]
            packages[Package(*map(str, words))] = readable
    return packages


def differs(spec: StudySpec, stored: Any) -> str:
    """Say what of a study comes from elsewhere than where it was created; empty if nothing does.

    Hooks do not count: a study can be looked at without them.

    Args:
        spec: The study, read here.
        stored: What :func:`packages_of` said where it was created; anybody may have written it.
    """
    before, here = _owners(stored), _owners(packages_of(spec))
    other = sorted(
        offer for offer in before.keys() | here.keys() if before.get(offer) != here.get(offer)
    )
    if not other:
        return ""
    offer = other[0]
    then, now = (owners.get(offer, "skdtune itself") for owners in (before, here))
    return f"it was created with the {offer} of {then}, here that is of {now}: install only {then}"


def _owners(needed: Any) -> dict[str, str]:
    """Return the package of each offer that decides what is trained."""
    return {
        offer: _normal(package.name)
        for package, offers in _read(needed).items()
        for offer in offers
        if not offer.startswith(f"{HOOKS.kind} ")
    }


def installed_version(package: str) -> str | None:
    """Return the version of a package that is installed here, None if it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _problem(offer: str, package: str, here: str) -> str:
    """Say why something that a package offered elsewhere cannot be taken from it here."""
    for kind, catalogue in _CATALOGUES.items():
        name = offer.removeprefix(f"{kind} ")
        if name == offer:
            continue
        taken = [
            p for p in catalogue.problems if p.name == name and _same(p.package.name, package)
        ]
        if taken:
            return f"the {offer} of {package} cannot be taken: {taken[0].reason}"
        owner = catalogue.package(name)
        if owner is None or not _same(owner.name, package):
            return (
                f"the {offer} of {package} is not in its version {here}, which is installed here"
            )
        try:
            require_usable(catalogue, name)
        except InputError as error:
            return str(error)
    return ""


def _same(one: str, other: str) -> bool:
    return _normal(one) == _normal(other)


def _normal(name: str) -> str:
    """Write the name of a package as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
