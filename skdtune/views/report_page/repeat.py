"""Command lines and study files that make a study again, with the same spec."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from skdtune.describe import dotted
from skdtune.describe.preset_folder import list_presets
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec
from skdtune.errors import SpecError

#: With more changes than that, a file is easier to read than a command line.
_MAX_CHANGES = 8


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How to make a study again."""

    commands: tuple[str, ...]
    needs_file: bool
    """They start from the study file of ``study_file``, because no preset comes close."""


def repetition(spec: StudySpec) -> Repetition:
    """Find the commands that create a study again and train it.

    Where a preset with a few ``--set`` gives a spec of the same hash, they start from the preset.
    """
    made_by = spec.kind.made_by(spec.name, spec.num_trials, spec.budget.epochs)
    if made_by is not None:
        return Repetition(commands=_written_lines([made_by]), needs_file=False)
    create = _from_preset(spec)
    first = create or ["create-study", f"{spec.name}.yaml"]
    lines = (first, ["launch", spec.name], ["best", spec.name])
    return Repetition(commands=_written_lines(lines), needs_file=create is None)


def _written_lines(lines: Iterable[list[str]]) -> tuple[str, ...]:
    return tuple(f"skdtune {shlex.join(line)}" for line in lines)


def study_file(spec: StudySpec) -> str:
    """Write the whole spec as a study file: all defaults filled in, no ``extends``."""
    content = spec.model_dump(mode="json")
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _from_preset(spec: StudySpec) -> list[str] | None:
    """Find the preset that needs the fewest changes; the hash proves that it is the same study."""
    # What no preset can know: where the data lie, and where a trained teacher.
    flat = dotted.flatten(spec.model_dump(mode="json"))
    paths = ("data.root", *(f"method.{name}.teacher" for name in spec.method.teachers))
    given = [f"{path}={_written(flat[path])}" for path in paths if flat.get(path) is not None]
    candidates = []
    # Presets are named after their data.
    presets = [p for p in list_presets() if p.name.startswith(f"{spec.data.name}-")]
    for preset in presets:
        named = _load(preset.name, spec, given)
        changes = None if named is None else _changes(named, spec)
        if changes is not None and len(changes) <= _MAX_CHANGES:
            candidates.append((len(changes), preset.name, given + changes))
    for _, preset_name, changes in sorted(candidates):
        made = _load(preset_name, spec, changes)
        if made is not None and made.digest == spec.digest:
            arguments = ["create-study", preset_name]
            arguments += ["--name", spec.name] if spec.name != preset_name else []
            arguments += ["--trials", str(spec.num_trials)]
            return arguments + [part for change in changes for part in ("--set", change)]
    return None


def _load(preset: str, spec: StudySpec, changes: list[str]) -> StudySpec | None:
    try:
        return load_spec(preset, overrides=changes, name=spec.name, num_trials=spec.num_trials)
    except SpecError:
        return None


def _changes(old: StudySpec, new: StudySpec) -> list[str] | None:
    """Return ``KEY=VALUE`` for each setting that differs; None where the search space does."""
    before, after = (spec.model_dump(mode="json") for spec in (old, new))
    for key in ("search", "enqueue"):
        if before.pop(key) != after.pop(key):
            return None
    flat_before, flat_after = dotted.flatten(before), dotted.flatten(after)
    if flat_before.keys() != flat_after.keys():
        return None
    return [
        f"{key}={_written(value)}"
        for key, value in flat_after.items()
        if flat_before[key] != value
    ]


def _written(value: Any) -> str:
    """Write a value as YAML on one line; JSON is that, and has no surprises."""
    return json.dumps(value, ensure_ascii=False)
