from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from skdtune.training import peak_memory
from skdtune.training.peak_memory import PeakMemory

CPU = torch.device("cpu")

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")


def grow(mebibytes: int) -> None:
    """Hold so much memory for a moment."""
    np.ones(mebibytes * 2**20, dtype=np.uint8)


@linux
def test_a_peak_is_seen_after_it_is_over_and_forgotten_by_the_next_trial() -> None:
    before = PeakMemory(CPU).mebibytes
    assert before is not None
    assert before > 10, "an interpreter with torch"
    trial = PeakMemory(CPU)
    grow(300)
    high = trial.mebibytes
    assert high is not None
    assert high > before + 200
    after = PeakMemory(CPU).mebibytes
    assert after is not None
    assert after < high - 200


def test_a_peak_that_cannot_be_reset_is_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peak_memory, "_CLEAR", tmp_path / "no" / "clear_refs")
    assert PeakMemory(CPU).mebibytes is None


def test_elsewhere_than_on_linux_it_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert PeakMemory(CPU).mebibytes is None


@linux
def test_a_kernel_that_does_not_tell_it_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "status")
    assert PeakMemory(CPU).mebibytes is None
    (tmp_path / "status").write_text("Name:\tpython\n")
    assert PeakMemory(CPU).mebibytes is None
