"""Workers that share a device are refused before they start if they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdtune.describe.presets import load_spec
from skdtune.errors import DeviceError
from skdtune.queue.stored_study import create_study, load_study
from skdtune.worker.probes.memory_need import USABLE, MemoryNeed
from skdtune.worker.probes.memory_probe import hungriest_config, probe_memory

GIB = 2**30


@given(needed=st.integers(1, 10**12), free=st.integers(0, 10**12))
def test_what_fits_fits_and_one_more_does_not(needed: int, free: int) -> None:
    need = MemoryNeed(needed, free)
    fitting = need.num_fitting
    assert fitting * needed <= free * USABLE
    assert (fitting + 1) * needed > int(free * USABLE)
    need.require(fitting, "gpu 0")
    with pytest.raises(DeviceError):
        need.require(fitting + 1, "gpu 0")


def test_the_refusal_says_what_would_fit() -> None:
    with pytest.raises(DeviceError) as caught:
        MemoryNeed(3 * GIB, 10 * GIB).require(8, "gpu 1")
    assert str(caught.value) == (
        "8 workers do not fit on gpu 1: one needs 3.00 GiB of the 10.00 GiB that are free, "
        "so at most 3 fit; lower --workers-per-gpu or --workers"
    )


@pytest.mark.parametrize(
    ("overrides", "path", "expected"),
    [
        ([], ("method", "drg", "stages"), (1, 2)),
        (
            ["search.data.batch_size={type: choice, choices: [256, 64]}"],
            ("data", "batch_size"),
            256,
        ),
        (["search.data.batch_size={type: int, low: 32, high: 512}"], ("data", "batch_size"), 512),
        (
            ["search.model.name={type: choice, choices: [resnet20, resnet8]}"],
            ("model", "name"),
            "resnet20",
        ),
        (
            ["search.model.precision={type: choice, choices: [float32, bfloat16, auto]}"],
            ("model", "precision"),
            "float32",
        ),
    ],
)
def test_the_hungriest_configuration_is_measured(
    overrides: list[str], path: tuple[str, ...], expected: Any
) -> None:
    spec = load_spec("digits-drg-dsr", overrides=overrides)
    value: Any = hungriest_config(spec)
    for part in path:
        value = getattr(value, part)
    assert value == expected


def test_a_probe_trains_takes_no_trial_and_answers_in_json(
    sqlite_url: str, run_cli: Callable[..., Any]
) -> None:
    spec = load_spec("digits-dsr", overrides=["data.max_per_class=20"], num_trials=3)
    create_study(spec, storage=sqlite_url)
    answer = run_cli("--storage", sqlite_url, "worker", "digits-dsr", "--probe", "--device", "cpu")
    found = json.loads(answer.stdout)
    assert set(found) == {"needed_bytes", "free_bytes", "num_fitting"}
    # An interpreter with torch; no trial of digits takes gigabytes.
    assert GIB / 10 < found["needed_bytes"] < 4 * GIB
    stored = load_study("digits-dsr", storage=sqlite_url)
    states = {trial.state.name for trial in stored.storage.get_all_trials(stored.study_id)}
    stored.close()
    assert states == {"WAITING"}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")])
def test_not_even_one_fits(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> None:
        raise error

    create_study(load_spec("digits-dsr"), storage=sqlite_url)
    monkeypatch.setattr("skdtune.worker.probes.memory_probe.build_trainer", full)
    with pytest.raises(DeviceError, match="not even one worker of digits-dsr fits on cpu"):
        probe_memory("digits-dsr", storage=sqlite_url, device="cpu")
