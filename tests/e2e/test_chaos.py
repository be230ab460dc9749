"""The short form of the study under faults; the long one is ``benchmarks/chaos.py`` itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("storage", "sizes"),
    [
        ("postgres", ["--trials", "14", "--workers", "3", "--restarts", "1", "--freeze-s", "5"]),
        ("sqlite", ["--trials", "8", "--workers", "3", "--freeze-s", "5"]),
    ],
)
def test_a_study_under_faults_ends_as_if_nothing_had_happened(
    storage: str, sizes: list[str], tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "benchmarks/chaos.py", "--storage", storage, *sizes, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.stdout, ended.stderr[-3000:]
    table = json.loads(ended.stdout)["table"]
    # A short run may end before every kind of fault had its turn; none may do harm.
    failed = [row for row in table if not row["ok"] and not row["is_fault"]]
    assert failed == [], ended.stderr[-6000:]
