"""``skdtune evaluate`` and ``skdtune compare``: what they print, in which form, and when not."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from skdtune.__main__ import main
from skdtune.errors import StudyError
from skdtune.queue.stored_study import load_study

Run = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("connections_end")
Finish = Callable[..., None]

ACCURACIES = {
    "digits-baseline": (0.90, 0.91, 0.92),
    "digits-drg": (0.93, 0.95, 0.94),
    "digits-dsr": (0.91, 0.90, 0.92),
}


@pytest.fixture
def url(skdtune_home: Path) -> str:
    return f"sqlite:///{skdtune_home / 'skdtune.db'}"


def scores(accuracy: float, index: int) -> dict[str, Any]:
    """What a training of an evaluation leaves behind."""
    return {
        "test_accuracy": accuracy,
        "test_top5": 0.99,
        "test_ece": 0.02 + index / 1000,
        "test_nll": 0.3,
        "num_test_images": 450,
        "data_fingerprint": "abcdefabcdef",
        "images": 1000,
        "train_seconds": 40.0,
        "peak_memory_mb": 300.0,
        "seed": 11 + index,
        "device": "cpu (test)",
        "versions": {"skdtune": "0.1.0", "torch": "2.9"},
    }


@pytest.fixture
def evaluate(run: Run, url: str, finish_trials: Finish) -> Callable[..., None]:
    """Search a study of one trial and evaluate it, without any training."""

    def make(study: str, *ends: Any, finished: bool = True) -> None:
        assert run("create-study", study, "--trials", "1").exit_code == 0
        finish_trials(url, study, 0.5)
        number = len(ends) if finished else len(ends) + 1
        queued = run("evaluate", study, "--queue-only", "--seeds", str(number))
        assert queued.exit_code == 0
        assert queued.stdout == (
            f"{study}.test: {number} trainings wait; train them: skdtune launch {study}.test\n"
        )
        finish_trials(url, f"{study}.test", *ends)

    return make


@pytest.fixture
def evaluated(evaluate: Callable[..., None]) -> None:
    for study, accuracies in ACCURACIES.items():
        evaluate(study, *(scores(value, index) for index, value in enumerate(accuracies)))


def test_a_finished_evaluation_is_printed_and_nothing_is_trained(
    run: Run, evaluated: None, skdtune_home: Path
) -> None:
    result = run("evaluate", "digits-drg")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "94.00 ± 1.00" in result.stdout
    assert "91.52 to 96.48" in result.stdout
    assert "seeds 11, 12, 13" in result.stdout
    assert "data abcdefabcdef" in result.stdout
    assert "torch 2.9" in result.stdout
    assert "device cpu (test)" in result.stdout
    assert "2 min 0 s" in result.stdout
    assert not (skdtune_home / "logs").exists()


def test_every_number_is_in_the_json(run: Run, evaluated: None) -> None:
    found = json.loads(run("evaluate", "digits-drg", "--json").stdout)
    (candidate,) = found["candidates"]
    assert (found["study"], found["evaluation"]) == ("digits-drg", "digits-drg.test")
    assert candidate["accuracy"]["mean"] == pytest.approx(0.94)
    assert candidate["accuracy"]["sd"] == pytest.approx(0.01)
    assert candidate["accuracy"]["n"] == 3
    assert candidate["images"] == 3000
    assert candidate["seconds"] == 120
    assert [seed["seed"] for seed in candidate["seeds"]] == [11, 12, 13]
    assert candidate["versions"] == {"skdtune": "0.1.0", "torch": "2.9"}
    assert len(found["spec_hash"]) == len(found["source_spec_hash"]) == 16
    assert found["finished"] is True
    assert found["missing"] == []


@pytest.mark.parametrize("command", [("evaluate", "digits-drg"), ("compare", *ACCURACIES)])
def test_a_table_is_printed_for_papers_and_for_scripts(
    run: Run, evaluated: None, command: tuple[str, ...]
) -> None:
    markdown = run(*command, "--markdown").stdout
    assert markdown.startswith("**Test accuracy")
    assert "| 94.00 ± 1.00 |" in " ".join(markdown.split())
    latex = run(*command, "--latex").stdout
    assert r"\toprule" in latex
    assert r"94.00 $\pm$ 1.00" in latex
    rows = list(csv.DictReader(io.StringIO(run(*command, "--csv").stdout)))
    assert "94.00 ± 1.00" in {row["Accuracy (%)"] for row in rows}


def test_studies_are_compared_with_the_one_of_plain_cross_entropy(
    run: Run, evaluated: None
) -> None:
    found = json.loads(run("compare", "digits-drg", *ACCURACIES, "--json").stdout)
    assert found["baseline"] == "digits-baseline"
    rows = {row["study"]: row for row in found["rows"]}
    assert set(rows) == set(ACCURACIES)
    assert rows["digits-baseline"]["accuracy_vs_baseline"] is None
    drg = rows["digits-drg"]["accuracy_vs_baseline"]
    assert drg["difference"] == pytest.approx(0.03)
    assert (drg["n"], rows["digits-drg"]["method"]) == (3, "drg")
    assert "Test accuracy beside digits-baseline" in run("compare", *ACCURACIES).stdout


def test_the_baseline_may_be_any_and_may_be_named_by_its_evaluation(
    run: Run, evaluated: None
) -> None:
    for baseline in ("digits-drg", "digits-drg.test"):
        result = run("compare", "digits-baseline", "--baseline", baseline, "--json")
        found = json.loads(result.stdout)
        assert found["baseline"] == "digits-drg"
        assert len(found["rows"]) == 2


def test_without_plain_cross_entropy_the_first_is_the_baseline(run: Run, evaluated: None) -> None:
    names = ("digits-dsr", "digits-drg")
    assert json.loads(run("compare", *names, "--json").stdout)["baseline"] == names[0]


def test_a_failed_seed_is_said_and_is_exit_code_1(
    run: Run, evaluate: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate("digits-drg", scores(0.9, 0), None, scores(0.8, 2))
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "digits-drg"])
    assert left.value.code == 1
    shown = capsys.readouterr().out
    assert "85.00 ± 7.07" in shown
    assert "seed 1 of trial 0 FAILED and is in no mean: ValueError: a broken" in shown
    (missing,) = json.loads(run("evaluate", "digits-drg", "--json").stdout)["missing"]
    assert (missing["seed_index"], missing["state"]) == (1, "failed")


def test_what_is_left_is_said(run: Run, evaluate: Callable[..., None]) -> None:
    evaluate("digits-drg", scores(0.9, 0), finished=False)
    found = json.loads(run("evaluate", "digits-drg", "--queue-only", "--json").stdout)
    assert found["finished"] is False
    (missing,) = found["missing"]
    assert (missing["seed_index"], missing["state"], missing["reason"]) == (1, "waiting", "")
    markdown = run("evaluate", "digits-drg", "--queue-only", "--markdown").stdout
    assert "1 trainings are left: skdtune launch digits-drg.test" in markdown


def test_an_evaluation_looks_like_one_everywhere(run: Run, evaluate: Callable[..., None]) -> None:
    evaluate("digits-drg", scores(0.9, 0), scores(0.8, 1))
    shown = run("status", "digits-drg.test").stdout
    assert "skdtune evaluate digits-drg shows the result" in shown
    assert "best" not in shown
    trials = json.loads(run("trials", "digits-drg.test", "--json").stdout)
    assert [trial["value_name"] for trial in trials] == ["test accuracy"] * 2
    assert all("method.drg.weight" in trial["params"] for trial in trials)
    rows = list(csv.DictReader(io.StringIO(run("trials", "digits-drg.test", "--csv").stdout)))
    assert all(row["method.drg.weight"] for row in rows)
    assert "test accuracy 90.00%" in run("explain", "digits-drg.test", "0").stdout
    finished = run("launch", "digits-drg.test")
    assert finished.stdout == "digits-drg.test is finished already: skdtune evaluate digits-drg\n"


def test_a_seed_whose_likelihood_is_not_finite_counts(
    run: Run, evaluate: Callable[..., None]
) -> None:
    ends = [scores(0.9, 0), scores(0.7, 1), scores(0.8, 2)]
    evaluate("digits-drg", *(end | {"test_nll": math.nan} for end in ends[:1]), *ends[1:])
    result = run("evaluate", "digits-drg")
    assert result.exit_code == 0
    assert "80.00 ± 10.00" in result.stdout
    assert "seeds 11, 12, 13" in result.stdout
    with pytest.raises(StudyError, match=r"nll of trial 0 .* is nan"):
        run("compare", "digits-drg")


def test_a_family_is_evaluated_and_compared_by_its_name(
    run: Run, url: str, finish_trials: Finish, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("digits-baseline", "digits-drg")
    for name in names:
        made = run("create-study", name, "--trials", "1", "--set", "family=relatives")
        assert made.exit_code == 0
        finish_trials(url, name, 0.5)
    queued = run("evaluate", "relatives", "--queue-only", "--seeds", "2").stdout
    assert [line.split(":")[0] for line in queued.splitlines()] == [f"{n}.test" for n in names]
    for shift, name in enumerate(names):
        finish_trials(url, f"{name}.test", *(scores((80 + shift + i) / 100, i) for i in (0, 1)))
    listed = json.loads(run("evaluate", "relatives", "--json").stdout)
    assert [found["study"] for found in listed] == list(names)
    compared = json.loads(run("compare", "relatives", "--json").stdout)
    assert [row["study"] for row in compared["rows"]] == list(names)
    launched = run("launch", "relatives").stdout
    assert launched.splitlines() == [
        f"{name} is finished already: skdtune best {name}" for name in names
    ]
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "relatives", "--name", "one"])
    assert left.value.code == 2
    assert "relatives stands for 2 studies" in capsys.readouterr().err


def test_trainings_longer_than_those_of_the_search_are_said_wherever_they_are_shown(
    run: Run, url: str, finish_trials: Finish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "digits-drg.test: each training has 24 epochs, a trial of its search had 12."
    assert run("create-study", "digits-drg", "--trials", "1").exit_code == 0
    finish_trials(url, "digits-drg", 0.5)
    longer = ("evaluate", "digits-drg", "--queue-only", "--seeds", "1")
    assert run(*longer, "--epochs", "24").exit_code == 0
    with contextlib.closing(load_study("digits-drg.test", storage=url)) as stored:
        config = stored.spec.trial_config({}, 0)
        assert config.budget.epochs == 24
        # The shares of the schedule go with the length.
        assert config.optimizer.drop_epochs(24) == (7, 14, 19)
        assert "24 epochs (the trials of the search: 12)" in stored.spec.note()
    finish_trials(url, "digits-drg.test", scores(0.9, 0))
    assert json.loads(run("evaluate", "digits-drg", "--json").stdout)["mixtures"] == [said]
    assert said in run("evaluate", "digits-drg", "--markdown").stdout
    report = tmp_path / "report.html"
    both = ("digits-drg", "digits-drg.test", "--no-dashboard")
    assert run("report", *both, "-o", str(report)).exit_code == 0
    assert said in html.unescape(report.read_text())
    # More seeds keep the length; another one is another evaluation.
    assert run("evaluate", "digits-drg", "--queue-only", "--seeds", "2").exit_code == 0
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "digits-drg", "--queue-only", "--epochs", "30"])
    assert left.value.code == 2
    assert "trains for 24 epochs, not 30; choose another --name" in capsys.readouterr().err


def test_an_evaluation_as_long_as_its_search_is_what_it_was(
    run: Run, url: str, finish_trials: Finish
) -> None:
    assert run("create-study", "digits-drg", "--trials", "1").exit_code == 0
    finish_trials(url, "digits-drg", 0.5)
    for name, more in (("plain", ()), ("same", ("--epochs", "12"))):
        assert run("evaluate", "digits-drg", "--queue-only", "--name", name, *more).exit_code == 0
    contents = []
    for name in ("plain", "same"):
        with contextlib.closing(load_study(name, storage=url)) as stored:
            contents.append(json.loads(stored.spec.to_json())["spec"] | {"name": ""})
    assert contents[0] == contents[1]
    assert "search_epochs" not in contents[0]["evaluation"]


def test_a_family_is_trained_longer_with_equal_images(
    run: Run, url: str, finish_trials: Finish
) -> None:
    names = {"digits-baseline": 24, "digits-dlb": 12}
    for name, epochs in names.items():
        made = ("--set", "family=relatives", "--set", f"budget.epochs={epochs // 2}")
        assert run("create-study", name, "--trials", "1", *made).exit_code == 0
        finish_trials(url, name, 0.5)
    assert run("evaluate", "relatives", "--queue-only", "--epochs", "24").exit_code == 0
    for name, epochs in names.items():
        with contextlib.closing(load_study(f"{name}.test", storage=url)) as stored:
            assert stored.spec.budget.epochs == epochs
