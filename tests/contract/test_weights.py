"""``--weights``: a training begins with them, and a study keeps their checksum, no path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import Result
from exit_codes import exit_code

from skdtune.models.backbone import build_backbone

pytestmark = pytest.mark.usefixtures("connections_end")

Run = Callable[..., Result]
SMALL = ("--set", "data.max_per_class=8", "--set", "budget.epochs=1")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    network = build_backbone(
        "resnet8", width=8, in_channels=1, image_size=(8, 8), num_classes=1000
    )
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(dict(network.state_dict()), file)
    return str(file)


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the variable be undone that the option sets for its process."""
    monkeypatch.setenv("SKDTUNE_WEIGHTS", "")


def test_a_run_begins_with_weights_and_is_another_one_without(
    run: Run, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    train = ("train", "digits-drg", *SMALL, "-o", str(folder), "--threads", "1")
    assert run(*train, "--weights", weights, "-q").exit_code == 0
    config = (folder / "config.yaml").read_text()
    assert "weights_sha256" in config
    assert weights not in "".join(p.read_text() for p in folder.glob("*.[jmyc]*"))
    assert "is finished already" in run(*train, "--weights", weights).stdout
    monkeypatch.setenv("SKDTUNE_WEIGHTS", "")
    assert exit_code(*train) == 2
    assert exit_code("train", str(folder / "config.yaml"), "-o", str(tmp_path / "other")) == 2
    assert not (tmp_path / "other").exists()


def test_a_study_takes_no_worker_without_its_weights(
    run: Run,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    create = ("create-study", "digits-drg", "--name", "w", "--trials", "1", *SMALL)
    created = json.loads(run(*create, "--weights", weights, "--json").stdout)
    assert created["created"]
    monkeypatch.setenv("SKDTUNE_WEIGHTS", "")
    assert exit_code("worker", "w", "--drain") == 2
    assert "name them by --weights" in capsys.readouterr().err
    assert json.loads(run("status", "w", "--json").stdout)["counts"]["waiting"] == 1
    assert run("worker", "w", "--drain", "--threads", "1", "--weights", weights).exit_code == 0
    (trial,) = json.loads(run("trials", "w", "--json").stdout)
    assert trial["state"] == "complete"


def test_what_does_not_fit_is_said_before_anything_is_created(
    run: Run, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = ("--set", "model.width=16", "--weights", weights)
    assert exit_code("create-study", "digits-drg", *wide) == 2
    assert "stem.0.weight is [8, 1, 3, 3] there" in capsys.readouterr().err
    assert exit_code("train", "digits-drg", *wide, "-o", str(tmp_path / "run")) == 2
    assert not (tmp_path / "run").exists()
    assert exit_code("create-study", "digits-drg", "--weights", "nowhere") == 2
    assert "there are no weights 'nowhere'" in capsys.readouterr().err


def test_drawn_weights_take_no_others(
    run: Run, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("create-study", "digits-drg", "--trials", "1", *SMALL).exit_code == 0
    assert exit_code("worker", "digits-drg", "--drain", "--weights", weights) == 2
    assert "create the study with --weights" in capsys.readouterr().err
