"""What a command loads: nothing heavy for help, no torch to describe and to follow a study.

Each test starts a process of its own, because a test run has loaded everything already.
"""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import skdtune
from skdtune.cli.main import cli

#: What is slow to import, or not there in a bare install.
HEAVY = {
    "torch",
    "torchvision",
    "optuna",
    "optuna_dashboard",
    "alembic",
    "sqlalchemy",
    "psycopg",
    "pydantic",
    "numpy",
    "PIL",
    "rich",
    "plotly",
    "sklearn",
    "yaml",
    "psutil",
}
TORCH = {"torch", "torchvision", "sklearn", "PIL"}

REPORT = """
import json, sys
code = 0
try:
    {statement}
except SystemExit as leaving:
    code = leaving.code
with open({path!r}, "w") as file:
    json.dump([code or 0, sorted({{name.partition(".")[0] for name in sys.modules}})], file)
"""


def loaded_by(statement: str, tmp_path: Path) -> set[str]:
    """Run a statement in a process of its own and return the top-level modules it loaded."""
    path = tmp_path / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(statement=statement, path=str(path))],
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(path.read_text())
    assert code == 0, done.stderr
    return set(modules)


def loaded_by_command(tmp_path: Path, *arguments: str) -> set[str]:
    return loaded_by(f"from skdtune.__main__ import main; main({list(arguments)!r})", tmp_path)


def commands(group: click.Group, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        path = (*above, name)
        found.append(path)
        if isinstance(command, click.Group):
            found += commands(command, path)
    return found


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    modules = loaded_by("import skdtune", tmp_path)
    assert "skdtune" in modules
    assert not modules & HEAVY
    assert "click" not in modules


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_help_and_version_load_nothing_heavy(tmp_path: Path, option: str) -> None:
    modules = loaded_by_command(tmp_path, option)
    assert "click" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("command", commands(cli), ids=" ".join)
def test_the_help_of_a_command_loads_nothing_heavy(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    assert not loaded_by_command(tmp_path, *command, "--help") & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ("studies",),
        ("studies", "--json"),
        ("create-study", "cifar100-drg-dsr", "--dry-run"),
        ("create-study", "digits-drg", "--set", "pruner.name=hyperband", "--dry-run"),
    ],
    ids=" ".join,
)
def test_describing_a_study_needs_neither_torch_nor_optuna(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    modules = loaded_by_command(tmp_path, *arguments)
    assert "yaml" in modules
    assert not modules & (TORCH | {"optuna", "sqlalchemy", "alembic", "numpy", "plotly"})


def test_listing_the_presets_needs_no_settings(tmp_path: Path) -> None:
    assert loaded_by_command(tmp_path, "studies") & HEAVY == {"yaml"}


def test_creating_and_following_a_study_needs_no_torch(tmp_path: Path) -> None:
    commands = [
        ["create-study", "digits-dsr", "--trials", "2"],
        ["status"],
        ["status", "digits-dsr", "--json"],
        ["trials", "digits-dsr"],
        ["storage", "check"],
        ["storage", "reap"],
    ]
    statement = (
        "from skdtune.cli.main import cli; "
        f"[cli.main(command, standalone_mode=False) for command in {commands!r}]"
    )
    modules = loaded_by(statement, tmp_path)
    # Optuna is there, so that this looks at the modules of these commands and at no others.
    assert "optuna" in modules
    assert not modules & TORCH


def test_planning_workers_needs_no_torch(tmp_path: Path) -> None:
    statement = "from skdtune.engines.local_slots import plan_slots; plan_slots('none', 2)"
    assert not loaded_by(statement, tmp_path) & HEAVY


def test_public_names_are_sorted_and_complete() -> None:
    assert skdtune.__all__ == sorted(skdtune.__all__)
    assert {"create_study", "load_spec", "results", "run_worker"} <= set(skdtune.__all__)


@pytest.mark.parametrize(
    ("name", "needed", "spared"),
    [
        ("__version__", set(), HEAVY),
        ("load_spec", {"pydantic"}, TORCH | {"optuna", "sqlalchemy"}),
        ("load_family", {"pydantic"}, TORCH | {"optuna", "sqlalchemy"}),
        ("plan_budget", {"pydantic"}, TORCH),
        ("create_study", {"optuna"}, TORCH),
        ("create_evaluation", {"optuna"}, TORCH),
        ("evaluated", {"optuna"}, TORCH),
        ("results", {"optuna"}, TORCH),
        ("run_worker", {"torch"}, set()),
    ],
)
def test_a_public_name_resolves_and_loads_only_what_it_needs(
    tmp_path: Path, name: str, needed: set[str], spared: set[str]
) -> None:
    modules = loaded_by(f"import skdtune; assert skdtune.{name}", tmp_path)
    assert needed <= modules
    assert not modules & spared


def test_every_public_name_is_among_those_that_are_tested_here() -> None:
    (mark,) = [
        mark
        for mark in test_a_public_name_resolves_and_loads_only_what_it_needs.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    ]
    assert set(skdtune.__all__) == {name for name, _, _ in mark.args[1]}


def test_no_room_has_the_name_of_something_public() -> None:
    """Python would put the room in its place as soon as anything of it is imported."""
    rooms = {module.name for module in pkgutil.iter_modules(skdtune.__path__)}
    assert {"analysis", "queue", "worker"} <= rooms
    assert not rooms & set(skdtune.__all__)


def test_an_unknown_name_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'skdtune' has no attribute 'nothing'"):
        getattr(skdtune, "nothing")  # noqa: B009
