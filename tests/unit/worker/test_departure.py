from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdtune.describe.epoch_report import EpochReport
from skdtune.signals import StopRequest
from skdtune.worker import departure
from skdtune.worker.departure import GRACE_S, Departure
from skdtune.worker.heartbeat import Heartbeat


@pytest.fixture(autouse=True)
def real_clock_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departure, "time", departure.time)  # type: ignore[attr-defined]


@dataclass
class FalseStop:
    interrupted: bool = False
    interrupted_for_s: float = 0.0


@dataclass
class FalseHeartbeat:
    lost: bool = False


class Scene:
    """A departure whose surroundings, and whose clock, a test sets by hand."""

    def __init__(self, grace_s: float = 20) -> None:
        self.stop, self.heartbeat = FalseStop(), FalseHeartbeat()
        self.elapsed_s = 0.0
        departure.time = SimpleNamespace(monotonic=lambda: 1000.0 + self.elapsed_s)  # type: ignore[attr-defined]
        self.departure = Departure(
            cast(StopRequest, self.stop), cast(Heartbeat, self.heartbeat), grace_s
        )

    def signal(self, seconds_ago: float = 0.0) -> None:
        self.stop.interrupted, self.stop.interrupted_for_s = True, seconds_ago

    def start_epoch(self, *seconds: float) -> None:
        """Start an epoch after some that took so long."""
        self.elapsed_s = 0.0
        self.departure.epoch_started(
            [
                EpochReport(epoch=n, val_accuracy=0.5, val_loss=1, lr=0.1, seconds=took)
                for n, took in enumerate(seconds)
            ]
        )


def test_as_long_as_nothing_happens_the_training_goes_on() -> None:
    scene = Scene()
    scene.start_epoch(1e6)
    scene.elapsed_s = 1e6
    assert not scene.departure.is_asked_for
    assert not scene.departure.is_due(0.0)


def test_an_epoch_that_can_be_finished_in_time_is_finished() -> None:
    scene = Scene(grace_s=20)
    scene.start_epoch(10, 10, 10)
    scene.signal()
    for elapsed in (0.0, 5.0, 9.0):
        scene.elapsed_s = elapsed
        assert not scene.departure.is_due(elapsed / 10)
        assert scene.departure.is_asked_for, "but no other is begun"


def test_an_epoch_that_cannot_be_finished_is_left_at_once() -> None:
    scene = Scene(grace_s=20)
    scene.start_epoch(60)
    scene.signal()
    scene.elapsed_s = 5
    assert scene.departure.is_due(5 / 60)
    scene.elapsed_s = 50
    assert not scene.departure.is_due(50 / 60), "its end is near"


def test_an_epoch_that_turns_out_to_be_slow_is_left_before_the_time_is_over() -> None:
    scene = Scene(grace_s=20)
    scene.start_epoch(10)
    scene.signal()
    assert not scene.departure.is_due(0.0)
    # Twice as slow as usual: half is done after ten seconds.
    scene.signal(seconds_ago=10)
    scene.elapsed_s = 10
    assert scene.departure.is_due(0.5)


def test_the_usual_time_is_the_median_of_the_epochs() -> None:
    scene = Scene(grace_s=20)
    scene.start_epoch(500, 10, 11, 9, 10)
    scene.signal()
    assert not scene.departure.is_due(0.0)


@pytest.mark.parametrize(
    ("progress", "elapsed_s", "expected"),
    [(0.0, 0.0, True), (0.0, 5.0, True), (0.5, 10.0, False), (0.5, 40.0, True), (1.0, 99, False)],
)
def test_the_first_epoch_is_judged_by_its_own_progress(
    progress: float, elapsed_s: float, expected: bool
) -> None:
    scene = Scene(grace_s=20)
    scene.start_epoch()
    scene.signal()
    scene.elapsed_s = elapsed_s
    assert scene.departure.is_due(progress) is expected


def test_a_margin_is_kept_for_what_takes_longer_than_expected() -> None:
    scene = Scene(grace_s=20)
    scene.start_epoch(17)
    scene.signal()
    assert scene.departure.is_due(0.0)
    scene.start_epoch(16)
    assert not scene.departure.is_due(0.0)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_a_lost_lease_is_left_at_once(progress: float) -> None:
    scene = Scene()
    scene.start_epoch(1)
    scene.heartbeat.lost = True
    assert scene.departure.is_due(progress)
    assert scene.departure.is_asked_for


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_a_trial_whose_time_is_up_is_left_at_once(progress: float) -> None:
    scene = Scene()
    scene.start_epoch(1)
    scene.departure.expire("it took too long")
    assert scene.departure.is_due(progress)
    assert scene.departure.is_asked_for


def test_the_usual_grace_leaves_time_for_the_checkpoint() -> None:
    assert 0 < GRACE_S < 30


@given(
    usual_s=st.floats(0.1, 1000),
    elapsed_s=st.floats(0, 1000),
    waited_s=st.floats(0, 60),
    progress=st.floats(0, 1),
)
def test_the_longer_a_signal_is_ago_the_sooner_a_trial_is_left(
    usual_s: float, elapsed_s: float, waited_s: float, progress: float
) -> None:
    scene = Scene(grace_s=20)
    scene.start_epoch(usual_s)
    scene.elapsed_s = elapsed_s
    scene.signal(waited_s)
    is_due: Callable[[float], bool] = scene.departure.is_due
    first = is_due(progress)
    if waited_s > 20:
        assert first
    scene.signal(waited_s + 1)
    assert is_due(progress) or not first
