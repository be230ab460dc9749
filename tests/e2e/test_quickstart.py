"""The quickstart, as `make quickstart` runs it after the install, with fewer trials."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from skdtune.analysis.study_results import TrialResult, results

SCRIPT = Path(__file__).parents[2] / "scripts" / "quickstart.sh"
STUDIES = ("digits-baseline", "digits-drg-dsr")
TRIALS = 2

pytestmark = pytest.mark.timeout(480)

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass
class Quickstart:
    """Two runs of the quickstart in one home, and the trials that each left behind."""

    program: Path
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]
    trials_after: tuple[list[TrialResult], list[TrialResult]]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    folder = tmp_path_factory.mktemp("quickstart")
    program = folder / "skdtune"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m skdtune "$@"\n')
    program.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SKDTUNE_")}
    environment |= {
        "SKDTUNE": str(program),
        "SKDTUNE_HOME": str(folder / "fresh home"),
        "SKDTUNE_QUICKSTART_TRIALS": str(TRIALS),
        "SKDTUNE_NATIVE": os.environ["SKDTUNE_NATIVE"],
    }

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT], env=environment, capture_output=True, text=True, timeout=200, check=False
        )

    first = run()
    after_first = stored_trials(folder / "fresh home")
    second = run()
    return Quickstart(program, first, second, (after_first, stored_trials(folder / "fresh home")))


def stored_trials(home: Path) -> list[TrialResult]:
    """Read all trials of both studies, with their times and values."""
    url = f"sqlite:///{home / 'skdtune.db'}"
    return [trial for study in STUDIES for trial in results(study, storage=url).trials]


def test_quickstart_ends_well(quickstart: Quickstart) -> None:
    assert quickstart.first.returncode == 0, quickstart.first.stderr
    for study in STUDIES:
        assert f"created {study}: {TRIALS} trials" in quickstart.first.stdout
        found = re.search(
            rf"^{study}: (\d) complete, (\d) pruned, 0 failed$",
            quickstart.first.stdout,
            re.MULTILINE,
        )
        assert found, quickstart.first.stdout
        assert int(found[1]) + int(found[2]) == TRIALS


def test_progress_is_plain_lines_where_there_is_no_terminal(quickstart: Quickstart) -> None:
    told = quickstart.first.stderr.splitlines()
    lines = [line for line in told if not line.startswith("logs in ")]

    assert "\x1b" not in quickstart.first.stdout + quickstart.first.stderr
    assert len(told) - len(lines) == len(STUDIES)
    assert all(re.match(rf"\d/{TRIALS} trials: ", line) for line in lines), lines
    waiting = f"0/{TRIALS} trials: {TRIALS} waiting; no trial complete yet; workers are starting"
    assert lines[0] == waiting
    finished = [line for line in lines if line.endswith("; finished")]
    assert len(finished) == len(STUDIES), "the last line of a study is written once"
    for line in finished:
        assert re.match(rf"{TRIALS}/{TRIALS} trials: .*; best \d+\.\d\d% \(trial \d\)", line)


def test_the_best_trial_stands_beside_trial_0_and_the_baseline(quickstart: Quickstart) -> None:
    rows = re.findall(
        r"│ (\S+) +│ (best|published): trial (\d+) +│ +(\d+\.\d+)% │", quickstart.first.stdout
    )

    assert [row[:2] for row in rows] == [
        ("digits-drg-dsr", "best"),
        ("digits-drg-dsr", "published"),
        ("digits-baseline", "best"),
        ("digits-baseline", "published"),
    ]
    assert [row[2] for row in rows if row[1] == "published"] == ["0", "0"]
    accuracies = [float(row[3]) for row in rows]
    assert accuracies[0] >= accuracies[1] > 50
    assert accuracies[2] >= accuracies[3] > 50


def test_three_next_commands_are_printed_and_exist(
    quickstart: Quickstart, run_cli: RunCli
) -> None:
    _, _, next_ = quickstart.first.stdout.partition("What to type next:")
    commands = re.findall(rf"^  {re.escape(str(quickstart.program))} (.+?)(?:  |$)", next_, re.M)

    assert [command.split()[0] for command in commands] == ["dashboard", "create-study", "launch"]
    created, launched = commands[1].split()[1], commands[2].split()[1]
    assert created == launched
    # What would be refused on a machine without a GPU is no hint.
    assert "--gpus" not in next_
    assert run_cli("create-study", created, "--dry-run").returncode == 0


def test_second_run_in_the_same_home_trains_nothing_again(quickstart: Quickstart) -> None:
    assert quickstart.second.returncode == 0, quickstart.second.stderr
    for study in STUDIES:
        assert f"{study} is there already with the same spec; nothing changed" in (
            quickstart.second.stdout
        )
        assert f"{study} is finished already" in quickstart.second.stdout
    after_first, after_second = quickstart.trials_after
    assert len(after_first) == len(STUDIES) * TRIALS
    assert {trial.state for trial in after_first} <= {"complete", "pruned"}
    assert after_second == after_first


def test_second_run_shows_the_same_result(quickstart: Quickstart) -> None:
    tables = [
        re.findall(r"^[│┏┡└].*$", run.stdout, re.MULTILINE)
        for run in (quickstart.first, quickstart.second)
    ]

    assert len(tables[0]) > 10
    assert tables[1] == tables[0]
