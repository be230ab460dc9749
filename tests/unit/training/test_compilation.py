"""torch.compile is there for who asks for it, and changes what is computed by rounding alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from skdtune.errors import InputError
from skdtune.models.kernels.native import load_kernels
from skdtune.training.compilation import compile_mode
from skdtune.training.device import describe_kernels
from skdtune.training.trainer import Trainer


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skdtune.models.kernels.native.load_kernels", lambda: None)
    monkeypatch.setattr("skdtune.training.device.load_kernels", lambda: None)


def test_it_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compile_mode() is None
    monkeypatch.setenv("SKDTUNE_COMPILE", "")
    assert compile_mode() is None


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKDTUNE_COMPILE", "fastest")
    with pytest.raises(InputError, match=r"expected one of default, .*, received 'fastest'"):
        compile_mode()


@pytest.mark.usefixtures("torch_alone")
def test_what_computes_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_kernels(torch.device("cpu")) == "torch"
    monkeypatch.setenv("SKDTUNE_COMPILE", "default")
    assert describe_kernels(torch.device("cpu")) == "compiled (default)"


def test_native_kernels_are_recorded() -> None:
    expected = "torch" if load_kernels() is None else "native"
    assert describe_kernels(torch.device("cpu")) == expected
    assert describe_kernels(torch.device("cuda")) == "torch"


@pytest.mark.usefixtures("torch_alone")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_training_computes_what_an_eager_one_does(
    make_trainer: Callable[..., Trainer],
    make_recorder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    skdtune_home: Path,
) -> None:
    curves, keys = [], []
    for mode in ("", "default"):
        monkeypatch.setenv("SKDTUNE_COMPILE", mode)
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        recorder = make_recorder()
        trainer = make_trainer(method__drg={}, method__dsr={})
        trainer.run(recorder)
        curves.append([(r.val_loss, r.losses["cross_entropy"]) for r in recorder.reports])
        keys.append(list(trainer.state()["network"]))
    torch.testing.assert_close(torch.tensor(curves[0]), torch.tensor(curves[1]), rtol=0.02, atol=0)
    assert keys[0] == keys[1]
    assert (skdtune_home / "cache" / "inductor").is_dir()
    # The variable was set for this process by the trainer.
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
