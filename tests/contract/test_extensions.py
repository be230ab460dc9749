"""``skdtune extensions``: what installed packages add, of every kind, and what cannot be taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from throwaway_package import Site

from skdtune.describe.offered import OPEN_CATALOGUES

RunCli = Callable[..., Any]

#: Something for a name; what a catalogue makes of it is asked elsewhere.
ENTRY = "class Entry:\n    pass\n"


@pytest.fixture
def bare() -> None:
    if any(catalogue.offered or catalogue.problems for catalogue in OPEN_CATALOGUES):
        pytest.skip("this installation has packages that add something")


def listed(run_cli: RunCli, env: dict[str, str]) -> list[dict[str, str]]:
    done = run_cli("extensions", "--json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, str]] = json.loads(done.stdout)
    return rows


@pytest.mark.usefixtures("bare")
def test_without_any_it_is_said_how_to_add_one(run_cli: RunCli) -> None:
    done = run_cli("extensions")
    assert done.returncode == 0
    assert done.stdout == (
        "no installed package adds anything; docs/extending.md says how one does\n"
    )
    assert listed(run_cli, {}) == []


@pytest.mark.usefixtures("bare")
def test_what_packages_offer_is_listed_with_its_state(
    run_cli: RunCli, tmp_path: Path, skdtune_home: Path
) -> None:
    site = Site(tmp_path / "site", skdtune_home)
    broken = "raise ValueError('two\\nlines')\n"
    site.install(
        "one-package",
        {"one_module.py": ENTRY, "broken_module.py": broken},
        {
            "skdtune.hooks": {"notes": "one_module:Entry", "lost": "no_such_module:Entry"},
            "skdtune.engines": {"moon": "one_module:Missing", "local": "one_module:Entry"},
            "skdtune.methods": {"twin": "one_module:Entry"},
            "skdtune.datasets": {"faces": "broken_module:Entry"},
            "skdtune.models": {"plain": "one_module:Entry"},
        },
    )
    twin = {"skdtune.methods": {"twin": "two_module:Entry"}}
    site.install("two-package", {"two_module.py": ENTRY}, twin, version="2.1")
    env = site.environment
    both = "one-package 1.2 and two-package 2.1 both offer it"
    expected = [
        ("method", "twin", "one-package", "1.2", both),
        ("method", "twin", "two-package", "2.1", both),
        ("data set", "faces", "one-package", "1.2", "cannot be imported: ValueError: two lines"),
        ("family of networks", "plain", "one-package", "1.2", "is no Family"),
        ("engine", "local", "one-package", "1.2", "skdtune has an engine of this name itself"),
        ("engine", "moon", "one-package", "1.2", "cannot be imported: AttributeError: "),
        ("hook", "lost", "one-package", "1.2", "cannot be imported: ModuleNotFoundError: No "),
        ("hook", "notes", "one-package", "1.2", "is none: it does not derive from "),
    ]
    rows = listed(run_cli, env)
    assert len(rows) == len(expected)
    for row, (kind, name, package, version, state) in zip(rows, expected, strict=True):
        assert (row["kind"], row["name"]) == (kind, name)
        assert (row["package"], row["version"]) == (package, version)
        assert row["state"].startswith(state), name
        assert len(row["state"].splitlines()) == 1
    shown = run_cli("extensions", env=env)
    assert shown.returncode == 0
    for row in rows:
        assert any(
            all(word in line for word in row.values()) for line in shown.stdout.splitlines()
        ), row
    # What is broken in a package is in nobody's way who does not name it.
    assert run_cli("studies", env=env).returncode == 0
    refused = run_cli("launch", "x", "--engine", "moon", env=env)
    assert refused.returncode == 2
    assert "the engine 'moon' of the package one-package 1.2 cannot be" in refused.stderr
