"""The shipped presets as tests ask for them: what there is follows from the folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from skdtune.describe.data_facts import facts_of
from skdtune.describe.method_config import PLAIN_LABEL, SETTINGS
from skdtune.describe.presets import load_family, load_spec
from skdtune.describe.spec import StudySpec
from skdtune.describe.term_config import TaughtTermConfig

STUDIES = Path(__file__).parents[1] / "studies"


def read(part: str) -> dict[str, Any]:
    """Return the content of a file of the folder by its name, ``methods/drg``."""
    content: dict[str, Any] = yaml.safe_load((STUDIES / f"{part}.yaml").read_text())
    return content


def parts_of(method: str) -> list[str]:
    """Return the methods that a method's file is composed of."""
    extends = read(f"methods/{method}").get("extends", [])
    parents = [extends] if isinstance(extends, str) else extends
    return [p.removeprefix("methods/") for p in parents if p.startswith("methods/")]


def named_by(method: str) -> set[str]:
    """Return the names of the terms that a method's file names, and those it is composed of."""
    content = read(f"methods/{method}")
    terms = set(content.get("method") or {}) - {"label"}
    label = (content.get("method") or {}).get("label", {}).get("name")
    inherited = [named_by(part) for part in parts_of(method)]
    return terms.union({label} if label else set(), *inherited)


def follows_the_recipe(dataset: str) -> bool:
    """Tell whether the file of a data set extends the recipe and changes nothing of it."""
    content, recipe = read(f"data/{dataset}"), _paths(read("recipe"))
    parts = (content, *content.get("methods", {}).values())
    changed = any("search" in part or _paths(part) & recipe for part in parts)
    return content.get("extends") == "recipe" and not changed


def _paths(content: dict[str, Any], above: str = "") -> set[str]:
    """Return the dotted paths of the values of a file."""
    paths = set()
    for name, value in content.items():
        own = f"{above}{name}"
        paths |= _paths(value, f"{own}.") if isinstance(value, dict) else {own}
    return paths


DATASETS = sorted(path.stem for path in (STUDIES / "data").iterdir())
#: Those that are trained as the published code trains.
FOLLOWING = [dataset for dataset in DATASETS if follows_the_recipe(dataset)]
#: The words for the methods in the names of presets.
METHODS = sorted(path.stem for path in (STUDIES / "methods").iterdir())
PRESETS = [f"{dataset}-{method}" for dataset in DATASETS for method in METHODS]
FAMILIES = [f"{dataset}-compare" for dataset in DATASETS]
#: What every preset trains that says nothing else.
BASELINE = {"label": {"name": PLAIN_LABEL}}
#: Those that are taught by a network that was trained before, with the names of these terms.
TAUGHT = {
    method: taught
    for method in METHODS
    if (taught := [n for n in named_by(method) if issubclass(SETTINGS[n], TaughtTermConfig)])
}


def needed(preset: str) -> list[str]:
    """Return settings for what a preset cannot bring along: a folder of images, a teacher."""
    dataset, _, method = preset.partition("-")
    settings = (
        ["data.root=/images"]
        if facts_of(read(f"data/{dataset}")["data"]["name"]).needs_root
        else []
    )
    for term in TAUGHT.get(method, []):
        settings.append(f"method.{term}.teacher=/teacher.safetensors")
        settings.append(f"method.{term}.teacher_sha256={'a' * 64}")
    return settings


@cache
def load(preset: str) -> StudySpec:
    """Return the study of a preset."""
    return load_spec(preset, overrides=needed(preset))


@cache
def load_all(family: str) -> dict[str, StudySpec]:
    """Return the studies of a family by the word for their method."""
    return {
        spec.name.removeprefix(f"{family}-"): spec
        for spec in load_family(family, overrides=needed(family))
    }


def searched_by(spec: StudySpec) -> tuple[dict[str, str], dict[str, str]]:
    """Describe what is searched of the method, and what some of it waits for."""
    of_method = {
        path.removeprefix("method."): param
        for path, param in spec.search.items()
        if path.startswith("method.")
    }
    waits = {
        path: parent.removeprefix("method.")
        for path, param in of_method.items()
        for parent in param.when
    }
    return {path: param.describe() for path, param in of_method.items()}, waits


def method_of_trial_0(spec: StudySpec) -> dict[str, Any]:
    """Return the terms of trial 0 with all their settings."""
    method = spec.trial_config(spec.base_params(), 0).method.model_dump(mode="json")
    return {name: settings for name, settings in method.items() if settings is not None}
