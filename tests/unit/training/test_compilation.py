"""torch.compile is there for who asks for it, and changes what is computed by rounding alone."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from skdtune.errors import InputError
from skdtune.models.backbone import build_backbone
from skdtune.models.kernels.native import load_kernels
from skdtune.training.compilation import MAX_GRAPHS, compile_mode, compile_network
from skdtune.training.device import describe_kernels
from skdtune.training.trainer import Trainer


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skdtune.models.kernels.native.load_kernels", lambda: None)
    monkeypatch.setattr("skdtune.training.device.load_kernels", lambda: None)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Trace graphs and generate no code: what is traced is what is right or wrong here."""
    compile_anything = torch.compile

    def trace(function: Any, *, mode: str, dynamic: bool) -> Any:
        assert mode == "default"
        return compile_anything(function, backend="aot_eager", dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", trace)
    torch._dynamo.reset()
    counters.clear()
    yield counters["frames"]
    torch._dynamo.reset()


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


@pytest.mark.usefixtures("torch_alone")
def test_trials_that_read_other_stages_do_not_share_a_graph(
    make_trainer: Callable[..., Trainer],
    make_recorder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    graphs: Counter[str],
) -> None:
    for stages in ((2,), (1,), (1, 2)):
        results = []
        for mode in ("", "default"):
            monkeypatch.setenv("SKDTUNE_COMPILE", mode)
            trainer, recorder = make_trainer(method__drg={"stages": stages}), make_recorder()
            trainer.run(recorder)
            gradients = [parameter.grad for parameter in trainer.network.parameters()]
            results.append([[report.losses for report in recorder.reports], gradients])
        torch.testing.assert_close(*results)
    assert graphs == {"total": 4, "ok": 4}


@pytest.mark.usefixtures("torch_alone")
def test_every_choice_of_stages_is_compiled(graphs: Counter[str]) -> None:
    images_BCHW = torch.randn(2, 1, 8, 8)
    every = [c for length in range(5) for c in combinations(range(1, 5), length)]
    assert len(every) <= MAX_GRAPHS
    for number, stages in enumerate(every, 1):
        network = build_backbone(
            "resnet18", width=4, in_channels=1, image_size=(8, 8), num_classes=3
        )
        expected = network(images_BCHW, stages)
        compile_network(network, "default")
        outputs = network(images_BCHW, stages)
        torch.testing.assert_close(outputs, expected)
        assert list(outputs.stage_features) == list(stages)
        assert graphs == {"total": number, "ok": number}
    assert not counters["graph_break"]
    assert not counters["unimplemented"]
