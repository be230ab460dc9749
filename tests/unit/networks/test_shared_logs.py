"""Logs of a launch of several studies: they go with the last of these, and with none before."""

from __future__ import annotations

from pathlib import Path

import pytest

from skdtune.home import STUDIES_FILE, shared_folder
from skdtune.networks.study_files import remove_files
from skdtune.queue.deletion import DeletedStudy


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for number, tokens in ((1, "aaaa bbbb"), (2, "bbbb")):
        launch = tmp_path / "logs" / shared_folder("kin") / f"launch-00{number}"
        launch.mkdir(parents=True)
        (launch / STUDIES_FILE).write_text("\n".join(tokens.split()))
        (launch / "worker-0.log").write_text("what it said")
    return tmp_path / "logs"


def delete(logs: Path, lineage: str) -> int:
    deleted = DeletedStudy(
        name="one", lineage=lineage, num_trials=1, artifacts=[], asked_as=["one"]
    )
    where = str(logs.parent / "none")
    removed = remove_files(deleted, artifacts=where, checkpoints=where, logs=logs)
    assert removed.problems == []
    return removed.num_log_folders


def launches(logs: Path) -> list[str]:
    return sorted(path.parent.name for path in logs.glob("*/*/worker-0.log"))


def test_logs_go_with_the_last_study_of_their_launch(logs: Path) -> None:
    assert delete(logs, "cccc") == 0
    assert delete(logs, "bbbb") == 1
    assert launches(logs) == ["launch-001"]
    assert delete(logs, "aaaa") == 1
    assert list(logs.iterdir()) == []
