"""Files that happen to lie in the current folder are never run, by no process that is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKDTUNE = Path(sys.executable).with_name("skdtune")
#: What processes import first, and what they are themselves.
NAMES = ("torch", "numpy", "optuna", "json", "skdtune", "sqlalchemy", "pydantic", "sitecustomize")


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    folder = tmp_path / "poisoned"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'was-run')!r}, 'a').write({name!r})\nraise SystemExit(99)\n"
        )
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(SKDTUNE), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not SKDTUNE.exists(), reason="the command is not installed")
def test_nothing_of_the_current_folder_is_run(poisoned: Path) -> None:
    tiny = ("--set", "model.width=4", "--set", "data.max_per_class=20", "--trials", "1")
    created = run(
        poisoned, "create-study", "digits-dlb", "--set", "budget.images=600", *tiny, "--name", "a"
    )
    assert created.returncode == 0, created.stderr
    launched = run(poisoned, "-q", "launch", "a", "--gpus", "none", "--workers", "1")
    assert launched.returncode == 0, launched.stderr
    assert not (poisoned.parent / "was-run").exists()
