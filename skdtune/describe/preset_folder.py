"""The folder of the shipped presets: which there are, and what the study file of each would say.

``<data>-<method>`` is composed when somebody asks for it, from ``data/<data>.yaml``,
``methods/<method>.yaml`` and what the data set's file has ``methods:`` say of this method alone.
``<data>-compare`` is the list of ``compare.yaml`` on that data set. ``tuned/<name>-tuned.yaml`` is
a study file, and a preset as it stands. A package that offers a method or a data set may bring its
file along, in a folder ``studies`` of the same layout beside its modules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from skdtune.catalogues.datasets import DATASETS
from skdtune.catalogues.methods import METHODS
from skdtune.describe.study_file import YAML_ERRORS, StudyFile, load_yaml, read_text, read_yaml

_PACKAGE = Path(__file__).parents[1]
#: The key of a file that lists presets to compare, instead of describing one study.
FAMILY_KEY = "compare"
#: The key of a data set's file under which published values stand that belong to one method on it.
_PAIRS_KEY = "methods"


def presets_dir() -> Path:
    """Return the folder of the shipped presets: in the wheel, else in the checkout."""
    packaged = _PACKAGE / "studies"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "studies"


@dataclass(frozen=True)
class Preset:
    """A shipped study, as ``skdtune studies`` lists it."""

    name: str
    description: str


def list_presets() -> list[Preset]:
    """List the shipped presets by name."""
    described = {path.stem: _description(path) for path in _tuned()}
    for name, (data, method) in _pairs().items():
        described[name] = f"{_description(data)}: {_description(method)}"
    return [Preset(name, description) for name, description in sorted(described.items())]


def preset(name: str) -> StudyFile | None:
    """Return the study file of a preset, or None if there is no such preset."""
    for path in _tuned():
        if path.stem == name:
            return StudyFile(path, _read(path))
    if name not in (pairs := _pairs()):
        return None
    data, method = pairs[name]
    content: dict[str, Any] = {"description": f"{_description(data)}: {_description(method)}"}
    if method.stem == FAMILY_KEY:
        content[FAMILY_KEY] = [f"{data.stem}-{short}" for short in _read(method)[FAMILY_KEY]]
    else:
        content["extends"] = [f"data/{data.stem}", f"methods/{method.stem}"]
        content |= _read(data).get(_PAIRS_KEY, {}).get(method.stem, {})
    return StudyFile(presets_dir() / f"{name}.yaml", content)


def part(name: str) -> StudyFile | None:
    """Return a file that presets are composed of, for others to extend, or None.

    Args:
        name: ``recipe``, ``data/<data>`` or ``methods/<method>``. Each may be called
            ``_base/<its last word>`` too, as it was while all of them lay in one folder.
    """
    paths = {"recipe": presets_dir() / "recipe.yaml"}
    for kind in ("data", "methods"):
        paths |= {f"{kind}/{stem}": path for stem, path in _parts(kind).items()}
    # Ours first, so that no file of a package takes the short name of one of them.
    for key, path in sorted(paths.items(), key=lambda item: presets_dir() not in item[1].parents):
        if name in (key, f"_base/{path.stem}"):
            # Values of a pair belong to its preset alone, which lays them on top.
            return StudyFile(path, {k: v for k, v in _read(path).items() if k != _PAIRS_KEY})
    return None


def _parts(kind: str) -> dict[str, Path]:
    """Return the files that presets are composed of by name: ours, and what packages add to them.

    Of two packages that bring a file of one name neither is taken, as of all that they offer.
    """
    ours, *others = (
        {path.stem: path for path in sorted(folder.glob(f"{kind}/*.yaml"))}
        for folder in (presets_dir(), *_folders_of_packages())
    )
    added = Counter(name for parts in others for name in parts)
    theirs = {n: p for parts in others for n, p in parts.items() if added[n] == 1}
    return ours | {name: path for name, path in theirs.items() if name not in ours}


def _folders_of_packages() -> Iterator[Path]:
    """Find the folders of presets that packages bring along; nothing of them is imported."""
    for module in sorted(METHODS.homes | DATASETS.homes):
        place = find_spec(module) if module.isidentifier() else None
        for folder in (place and place.submodule_search_locations) or ():
            yield Path(folder) / "studies"


def _pairs() -> dict[str, tuple[Path, Path]]:
    """Return the two files that each composed preset is made of, by its name."""
    methods = [*_parts("methods").values(), presets_dir() / f"{FAMILY_KEY}.yaml"]
    pairs: dict[str, tuple[Path, Path]] = {}
    # Ours come first: nobody else's file makes another study of the name of one.
    for data in _parts("data").values():
        for method in methods:
            pairs.setdefault(f"{data.stem}-{method.stem}", (data, method))
    return pairs


def _tuned() -> list[Path]:
    # The ending keeps a tuned preset from taking the name, and so the hash, of a composed one.
    return list(presets_dir().glob("tuned/*-tuned.yaml"))


# A family asks for the file of its data set once for each of its methods.
_read = cache(read_yaml)


@cache
def _description(path: Path) -> str:
    """Return what a file says of itself; parsing that line alone keeps `skdtune studies` quick."""
    try:
        line = re.search(r"^description:.*$", read_text(path), re.MULTILINE)
        return str(load_yaml(line[0])["description"]) if line else ""
    except (*YAML_ERRORS, OSError, ValueError, TypeError):
        # That of a package, perhaps: who takes it is told, and nobody else is kept from his own.
        return f"{path} cannot be read"
