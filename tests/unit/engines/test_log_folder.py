"""Where the workers of a launch write, beside other launches of the same study."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from skdtune.engines.log_folder import NUM_KEPT, own_log_folder
from skdtune.errors import InputError


def launch(of_study: Path) -> str:
    with own_log_folder(of_study) as folder:
        (folder / "worker-0.log").write_text("a trial")
        return folder.name


def kept(of_study: Path) -> list[str]:
    return sorted(path.name for path in of_study.iterdir())


def test_every_launch_has_a_folder_of_its_own_and_the_newest_are_kept(tmp_path: Path) -> None:
    of_study = tmp_path / "logs" / "tiny"
    names = [launch(of_study) for _ in range(NUM_KEPT + 3)]
    assert names == [f"launch-{number:03d}" for number in range(1, NUM_KEPT + 4)]
    assert kept(of_study) == names[3:]
    assert (of_study / names[3] / "worker-0.log").read_text() == "a trial"


def test_what_lies_there_otherwise_stays(tmp_path: Path) -> None:
    # As older versions wrote it, and as people do.
    (tmp_path / "worker-0.log").write_text("older")
    (tmp_path / "launch-notes").mkdir()
    for _ in range(NUM_KEPT + 1):
        launch(tmp_path)
    assert (tmp_path / "worker-0.log").read_text() == "older"
    assert (tmp_path / "launch-notes").is_dir()


def test_launches_at_once_share_no_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: launch(tmp_path), range(24)))
    # A number is given out again only after its folder is gone.
    assert len(set(names)) == 24
    assert len(kept(tmp_path)) <= NUM_KEPT + 8


def test_the_logs_of_a_launch_that_runs_are_not_removed(tmp_path: Path) -> None:
    with own_log_folder(tmp_path) as running:
        (running / "worker-0.log").write_text("still going on")
        for _ in range(NUM_KEPT + 2):
            launch(tmp_path)
        assert (running / "worker-0.log").read_text() == "still going on"
    launch(tmp_path)
    assert not running.exists()


def test_a_launch_that_started_nobody_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), own_log_folder(tmp_path / "tiny"):
        raise ZeroDivisionError
    assert kept(tmp_path / "tiny") == []


def test_where_there_are_no_locks_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(FileLock, "_acquire", refuse)
    names = [launch(tmp_path / "tiny") for _ in range(NUM_KEPT + 1)]
    assert kept(tmp_path / "tiny") == names


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    expected = rf"no logs can be written to {tmp_path}/logs/tiny \({os.strerror(20)}\): .* --home$"
    with pytest.raises(InputError, match=expected), own_log_folder(tmp_path / "logs" / "tiny"):
        pass
