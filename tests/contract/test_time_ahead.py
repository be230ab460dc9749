"""What `create-study --dry-run` says of the time that a study takes on this machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from skdtune.cli import time_ahead

Run = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("connections_end")

PLAN = ("create-study", "digits-dsr", "--name", "new", "--trials", "10", "--dry-run")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    monkeypatch.setenv("SKDTUNE_STORAGE", url)
    return url


def time_said(result: Result) -> str:
    assert result.exit_code == 0
    said = re.findall(r"^Time: (.*)$", result.stderr, re.MULTILINE)
    return said[0] if said else ""


def test_earlier_trials_of_this_machine_say_how_long_others_take(
    run: Run, url: str, finish_trials: Callable[..., None]
) -> None:
    assert time_said(run(*PLAN)) == ""
    assert run("create-study", "digits-dsr", "--trials", "1").exit_code == 0
    finish_trials(url, "digits-dsr", {"test_accuracy": 0.5, "epoch_seconds": 300.0})
    planned = run(*PLAN, "--set", "budget.epochs=12")
    assert time_said(planned).startswith("at most about 10 h 0 min with 1 worker")
    assert "as earlier trials of this machine took" in time_said(planned)
    assert "Time:" not in planned.stdout
    assert time_said(run("-q", *PLAN, "--set", "budget.epochs=12")) == ""


def test_without_any_a_short_probe_does(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_ahead, "_WORTH_A_PROBE", 1)
    planned = run(*PLAN, "--set", "budget.epochs=9000")
    assert "measuring how fast new trains here" in planned.stderr
    assert "as a short probe measured" in time_said(planned)


def test_data_that_are_not_here_are_not_fetched_for_it(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = run("create-study", "cifar100-dsr", "--dry-run")
    assert "measuring" not in planned.stderr
    assert time_said(planned) == ""
