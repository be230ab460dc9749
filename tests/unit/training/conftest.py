from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from skdtune import dotted
from skdtune.config import TrialConfig
from skdtune.data.batches import DeviceImages
from skdtune.data.registry import load_search_data
from skdtune.report import EpochReport, Verdict
from skdtune.spec import parse
from skdtune.training.trainer import Trainer

CPU = torch.device("cpu")

TINY: dict[str, Any] = {
    "data": {
        "name": "digits",
        "max_per_class": 24,
        "val_fraction": 0.25,
        "batch_size": 32,
        "crop_padding": 1,
    },
    "model": {"name": "resnet8", "width": 4, "precision": "float32"},
    "optimizer": {"lr": 0.05},
    "budget": {"epochs": 2},
}

MakeConfig = Callable[..., TrialConfig]
MakeTrainer = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_config() -> MakeConfig:
    """Make a tiny digits configuration; keyword arguments are dotted keys with __ for the dot."""

    def make(**changes: Any) -> TrialConfig:
        raw = TINY
        for path, value in changes.items():
            raw = dotted.put(raw, path.replace("__", "."), value)
        return parse(TrialConfig, raw, "test")

    return make


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[DeviceImages, DeviceImages]:
    config = parse(TrialConfig, TINY, "test").data
    folder = tmp_path_factory.mktemp("digits")
    data = load_search_data(config, data_dir=folder, cache_dir=folder)
    train, val = (
        DeviceImages(images, data.mean_C, data.std_C, CPU) for images in (data.train, data.val)
    )
    return train, val


@pytest.fixture
def make_trainer(
    digits: tuple[DeviceImages, DeviceImages], make_config: MakeConfig
) -> MakeTrainer:
    def make(config: TrialConfig | None = None, **changes: Any) -> Trainer:
        train, val = digits
        return Trainer(config or make_config(**changes), train, val, 10, CPU)

    return make


class Recorder:
    """Remembers what a trainer tells; prunes and interrupts where it was told to.

    Args:
        prune_after: Prune after so many epochs.
        interrupt_at: Interrupt when asked for the so-manieth time, counted from 1.
    """

    def __init__(self, prune_after: int | None = None, interrupt_at: int | None = None) -> None:
        self.reports: list[EpochReport] = []
        self.asked = 0
        self.progress: list[float] = []
        self._prune_after = prune_after
        self._interrupt_at = interrupt_at

    def epoch_finished(self, report: EpochReport) -> Verdict:
        self.reports.append(report)
        return Verdict.PRUNE if len(self.reports) == self._prune_after else Verdict.CONTINUE

    def interrupted(self, progress: float) -> bool:
        self.asked += 1
        self.progress.append(progress)
        return self.asked == self._interrupt_at

    @property
    def curve(self) -> list[tuple[object, ...]]:
        """All that was reported, without the clock."""
        return [
            (r.epoch, r.val_accuracy, r.val_loss, tuple(r.losses.items()), r.lr)
            for r in self.reports
        ]


@pytest.fixture
def make_recorder() -> Callable[..., Recorder]:
    return Recorder
