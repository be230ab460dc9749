"""What the shipped presets say, pinned: name, hash, canonical text, and trial 0's configuration.

A study in a storage is found again by these: another hash makes ``create-study`` refuse to go on
with it, another configuration of trial 0 makes its checkpoints foreign. Presets may be added
without a pin. The pins are written once, and again only with an upgrade of stored studies that
has a test of its own::

    python tests/contract/test_preset_pins.py
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

import skdtune
from skdtune.describe.settings import canonical

PINS_FILE = Path(__file__).parent / "data" / "preset-pins.json"
PINS = json.loads(PINS_FILE.read_text()) if PINS_FILE.is_file() else {}
#: The pins by the name of the study. What differs from another study, ``like``, is written out.
PINNED: dict[str, dict[str, Any]] = PINS.get("studies", {})

TEACHER = "method.tf_kd_self.teacher"


def needed(preset: str) -> list[str]:
    """Return settings for what a preset cannot bring along: a folder of images, a teacher."""
    settings = ["data.root=/images"] if preset.startswith("imagefolder") else []
    if preset.endswith("tfkd-self"):
        settings += [f"{TEACHER}=/teacher.safetensors", f"{TEACHER}_sha256={'a' * 64}"]
    return settings


@lru_cache
def load(asked: str) -> dict[str, Any]:
    """Return the studies of a preset by name: one, or those of a family."""
    if asked.endswith("-compare"):
        specs = skdtune.load_family(asked, overrides=needed(asked))
    else:
        specs = [skdtune.load_spec(asked, overrides=needed(asked))]
    return {spec.name: spec for spec in specs}


def flat(content: Any, path: str = "") -> dict[str, Any]:
    """Return nested data by dotted paths; lists and what is empty are values."""
    if not isinstance(content, Mapping) or not content:
        return {path: content}
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{path}.{key}" if path else key)
    return found


def config_hash(config: Any) -> str:
    """Return the hash that checkpoints know a trial by."""
    text = json.dumps(canonical(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hashes(spec: Any) -> dict[str, str]:
    """Return what must never change of a study: not its hash, not a letter, not trial 0."""
    return {
        "digest": spec.digest,
        "text_sha256": hashlib.sha256(spec.to_json().encode()).hexdigest(),
        "trial_0": config_hash(spec.trial_config(spec.base_params(), 0)),
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the keys that differ, a line for each."""
    return [
        f"{path}: {before.get(path, 'absent')!r} was pinned, now {after.get(path, 'absent')!r}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path, "absent") != after.get(path, "absent")
    ]


def pinned_content(name: str) -> dict[str, Any]:
    """Return the whole content of a pinned study, by dotted paths."""
    pin = PINNED[name]
    base = pinned_content(pin["like"]) if pin["like"] else {}
    kept = {path: value for path, value in base.items() if path not in pin["without"]}
    return {**kept, **pin["with"]}


@pytest.mark.parametrize("name", PINNED)
def test_a_preset_is_the_study_that_it_was(name: str) -> None:
    pin = PINNED[name]
    studies = load(pin["preset"])
    assert name in studies, f"{pin['preset']} has no study {name} any more"
    found = hashes(studies[name])
    changed = [key for key in found if found[key] != pin[key]]
    if not changed:
        return
    content = flat(json.loads(studies[name].to_json()))
    told = differences(pinned_content(name), content) or ["the same keys and values otherwise"]
    pytest.fail("\n".join([f"{name}: {', '.join(changed)} changed", *told]), pytrace=False)


def test_every_pinned_preset_is_listed_with_its_description(
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    listed = run_cli("studies", "--json")
    assert listed.returncode == 0, listed.stderr
    found = {preset["name"]: preset["description"] for preset in json.loads(listed.stdout)}
    assert set(PINS["listed"]) == {pin["preset"] for pin in PINNED.values()}
    assert not differences(PINS["listed"], {n: found[n] for n in PINS["listed"] if n in found})


def test_the_pins_cover_all_data_sets_methods_and_families() -> None:
    assert len(PINS["listed"]) >= 64
    assert len(PINNED) >= 116


def write() -> None:
    """Pin the presets as they are."""
    command = [sys.executable, "-m", "skdtune", "studies", "--json"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    contents: dict[str, dict[str, Any]] = {}
    lines = []
    for preset in (entry["name"] for entry in listed):
        for name, spec in load(preset).items():
            content = flat(json.loads(spec.to_json()))
            pin = {"preset": preset, **hashes(spec), **_nearest(content, contents)}
            contents[name] = content
            lines.append(f"{json.dumps(name)}: {json.dumps(pin)}")
    described = json.dumps({entry["name"]: entry["description"] for entry in listed}, indent=1)
    studies = ",\n".join(lines)
    PINS_FILE.write_text(f'{{"listed": {described},\n"studies": {{\n{studies}\n}}}}\n')


def _nearest(content: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> Any:
    """Write a content as what differs from the study that has most in common with it."""
    found: dict[str, Any] = {"like": None, "with": content, "without": []}
    for name, other in others.items():
        own = {path: v for path, v in content.items() if other.get(path, "absent") != v}
        without = [path for path in other if path not in content]
        if len(own) + len(without) < len(found["with"]) + len(found["without"]):
            found = {"like": name, "with": own, "without": without}
    return found


if __name__ == "__main__":
    write()
