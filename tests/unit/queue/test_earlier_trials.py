"""What an epoch took in earlier trials: of this machine, and of studies like the one asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec
from skdtune.queue.earlier_trials import epoch_seconds_here
from skdtune.queue.stored_study import create_study, load_study

FinishTrials = Callable[..., None]


@pytest.fixture
def seconds_of(any_url: str, finish_trials: FinishTrials) -> Callable[..., float | None]:
    """Ask what a study would take after three trials of another one."""
    create_study(load_spec("digits-dsr", num_trials=9), storage=any_url)
    ends = [{"test_accuracy": 0.5, "epoch_seconds": seconds} for seconds in (2.0, 3.0, 40.0)]
    finish_trials(any_url, "digits-dsr", *ends, {"test_accuracy": 0.5, "epoch_seconds": "fast"})

    def ask(spec: StudySpec, host: str | None = None) -> float | None:
        stored = load_study("digits-dsr", storage=any_url)
        try:
            return epoch_seconds_here(stored.engine, spec, host)
        finally:
            stored.close()

    return ask


def test_the_median_of_trials_like_it_counts(seconds_of: Callable[..., float | None]) -> None:
    assert seconds_of(load_spec("digits-dsr", name="new", overrides=["optimizer.lr=0.2"])) == 3.0


@pytest.mark.parametrize("change", ["model.width=4", "data.max_per_class=9"])
def test_another_network_or_other_data_say_nothing(
    change: str, seconds_of: Callable[..., float | None]
) -> None:
    assert seconds_of(load_spec("digits-dsr", overrides=[change])) is None


def test_another_method_or_machine_says_nothing(seconds_of: Callable[..., float | None]) -> None:
    assert seconds_of(load_spec("digits-drg")) is None
    assert seconds_of(load_spec("digits-dsr"), "elsewhere") is None
