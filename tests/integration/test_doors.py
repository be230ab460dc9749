"""The study stays a plain Optuna study, and all views of it agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

MakeSearch = Callable[..., Any]


@pytest.fixture(scope="module")
def finished(
    module_search: MakeSearch,
    module_start_worker: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """Run a small search with complete, pruned, failed and waiting trials."""
    folder = tmp_path_factory.mktemp("doors")
    search = module_search(
        f"sqlite:///{folder}/study.db",
        "search.optimizer.lr.high=1e30",
        "enqueue=[{optimizer.lr: 1.0e25}, {optimizer.lr: 0.05}]",
        num_trials=5,
    )
    worker = module_start_worker(search, "--max-trials", "3")
    assert worker.wait() == 0, worker.err
    search.stored.study.tell(_claimed(search), state=TrialState.FAIL)
    assert search.states == ["COMPLETE", "PRUNED", "COMPLETE", "FAIL", "WAITING"]
    return search


def _claimed(search: Any) -> int:
    from skdtune.queue import leases

    stored = search.stored
    claim = leases.claim(stored.engine, stored.study_id, leases.WorkerIdentity(device="cpu"))
    assert claim is not None
    return claim.number


def test_optuna_loads_the_study(finished: Any) -> None:
    study = optuna.load_study(study_name="tiny", storage=finished.url)
    assert len(study.trials) == 5
    assert study.best_trial.number in (0, 2)
    assert study.best_value == max(finished.trials[n].value for n in (0, 2))
    assert study.metric_names == ["validation_accuracy"]
    study._storage.remove_session()


def test_optuna_continues_the_study_by_itself(finished: Any) -> None:
    study = optuna.load_study(study_name="tiny", storage=finished.url)
    frozen = study.trials[2]
    study.add_trial(frozen)
    assert study.trials[5].params == frozen.params
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_the_optuna_command_line_reads_the_study(finished: Any) -> None:
    command = [str(Path(sys.executable).with_name("optuna")), "trials", "--storage", finished.url]
    found = subprocess.run(
        [*command, "--study-name", "tiny", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    trials = json.loads(found.stdout)
    assert [trial["state"] for trial in trials][:5] == finished.states[:5]
    assert trials[2]["params"]["optimizer.lr"] == 0.05


def asked(run_cli: Callable[..., Any], *arguments: str) -> Any:
    found = run_cli(*arguments)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_status_best_and_trials_agree_with_optuna(
    finished: Any, run_cli: Callable[..., Any]
) -> None:
    arguments = ("tiny", "--storage", finished.url, "--json")
    study = optuna.load_study(study_name="tiny", storage=finished.stored.storage)
    frozen = study.trials
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "WAITING": "waiting"}

    status = asked(run_cli, "status", *arguments)
    assert status["num_trials"] == len(frozen)
    for state, name in names.items():
        assert status["counts"][name] == sum(trial.state.name == state for trial in frozen), name
    assert status["best_value"] == study.best_value
    assert status["best_trial"] == study.best_trial.number

    best = asked(run_cli, "best", *arguments)
    assert best["best"]["number"] == study.best_trial.number
    assert best["best"]["value"] == study.best_value
    assert best["best"]["params"] == study.best_params
    assert best["default"]["value"] == frozen[0].value

    trials = asked(run_cli, "trials", *arguments)
    assert len(trials) == len(frozen)
    for shown, trial in zip(trials, frozen, strict=True):
        assert shown["number"] == trial.number
        assert shown["state"] == names[trial.state.name]
        assert shown["params"] == trial.params
        assert shown["epochs"] == len(trial.intermediate_values)
    assert trials[0]["value"] == frozen[0].value
    assert trials[1]["failure_kind"] == "nan"


SCRIPT = """
import skdtune

spec = skdtune.load_spec("digits-dsr", name="script", num_trials=2, overrides={overrides!r})
assert skdtune.create_study(spec)
assert not skdtune.create_study(spec)
assert skdtune.run_worker("script", device="cpu") == 2
found = skdtune.results("script")
assert found.progress.finished
assert [trial.state for trial in found.trials] == ["complete", "complete"]
print(found.best.value, found.default.number)
"""


def test_the_same_steps_are_one_python_script(skdtune_home: Path) -> None:
    overrides = [
        "data.max_per_class=20",
        "model.width=4",
        "budget.epochs=1",
        "pruner={name: none}",
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT.format(overrides=overrides)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "SKDTUNE_HOME": str(skdtune_home), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    value, default = done.stdout.split()
    assert 0 <= float(value) <= 1
    assert default == "0"
    study = optuna.load_study(study_name="script", storage=f"sqlite:///{skdtune_home}/skdtune.db")
    assert study.best_value == float(value)
