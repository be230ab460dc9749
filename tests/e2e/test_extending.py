"""The package of docs/extending.md: built from that very page, installed, and used as it says."""

from __future__ import annotations

import ast
import json
import shlex
import sqlite3
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from throwaway_package import Site

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FENCES = [t for t in MarkdownIt().parse(PAGE.read_text(encoding="utf-8")) if t.type == "fence"]
FILES = {t.info.split()[1]: t.content for t in FENCES if " " in t.info}
COMMANDS = [shlex.split(line) for t in FENCES if t.info == "sh" for line in t.content.splitlines()]


@pytest.fixture(scope="module")
def lumen(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Write the files of the page, and install the package into a folder of its own."""
    place = tmp_path_factory.mktemp("extending")
    for path, content in FILES.items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    (install, *_), pip = COMMANDS, ["-m", "pip", "-q", "--disable-pip-version-check"]
    assert install == ["pip", "install", "./lumen"]
    site = Site(place / "site", place / "home")
    offline = ["--no-build-isolation", "--no-deps", "--target", str(site.folder)]
    site.printed(*pip, "install", *offline, "./lumen", packages=False)
    return site


def test_the_page_needs_nothing_but_public_names() -> None:
    sources = {path: text for path, text in FILES.items() if path.endswith(".py")}
    assert len(sources) == 7
    for path, text in sources.items():
        imported = {
            node.module or ""
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom)
        }
        ours = {name for name in imported if name.startswith("skdtune")}
        assert ours <= {"skdtune.extending"}, path


def test_the_commands_of_the_page_do_what_it_says(lumen: Site) -> None:
    printed = {}
    for program, *arguments in COMMANDS[1:]:
        assert program == "skdtune"
        printed[arguments[0], "--dry-run" in arguments] = lumen.printed(
            "-m", "skdtune", *arguments
        )
    offered = printed["extensions", False]
    for name in ("confidence_penalty", "stripes", "mixers", "weight_norm", "lumen", "0.1.0"):
        assert name in offered
    plan = printed["create-study", True]
    assert "method.confidence_penalty.weight" in plan
    assert "Needs lumen 0.1.0" in plan
    assert "best: trial" in printed["best", False]
    assert "versions lumen 0.1.0" in printed["evaluate", False]
    with sqlite3.connect(lumen.home / "skdtune.db") as database:
        rows = database.execute(
            "select study_name, state, trial_id from trials join studies using (study_id)"
        ).fetchall()
        left = database.execute("select trial_id, key, value_json from trial_user_attributes")
        attributes: dict[int, dict[str, object]] = {}
        for trial, key, value in left:
            attributes.setdefault(trial, {})[key] = json.loads(value)
    complete = [(study, trial) for study, state, trial in rows if state == "COMPLETE"]
    assert {study for study, _ in complete} == {
        "stripes-confidence-penalty",
        "stripes-confidence-penalty.test",
    }
    assert {state for _, state, _ in rows} <= {"COMPLETE", "PRUNED"}
    for _, trial in complete:
        assert attributes[trial]["versions"]["lumen"] == "0.1.0"  # type: ignore[index]
        assert attributes[trial]["weight_norm"] > 1  # type: ignore[operator]
    # Chance is a quarter.
    scores = [
        attributes[trial]["test_accuracy"] for study, trial in complete if study.endswith(".test")
    ]
    assert len(scores) == 2
    assert min(scores) > 0.5, scores  # type: ignore[type-var]
    assert (lumen.folder.parent / "trained" / "model.safetensors").is_file()


def test_describing_with_the_package_imports_no_torch(lumen: Site) -> None:
    look = (
        "import sys, skdtune; skdtune.load_spec('stripes-confidence-penalty');"
        "print([m for m in ('torch', 'optuna', 'numpy', 'PIL') if m in sys.modules])"
    )
    assert lumen.printed("-c", look).strip() == "[]"
