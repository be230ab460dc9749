from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from skdtune.describe.epoch_report import EpochReport
from skdtune.describe.faults import FaultsConfig
from skdtune.worker.hooks import time_limits
from skdtune.worker.hooks.hook import TrialInHand
from skdtune.worker.hooks.time_limits import TimeLimits


class Clock:
    """A clock that the test puts forward; its readers are told apart by nothing."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time_limits, "time", clock)
    return clock


class FalseAttempt:
    """An attempt that notes that its time expired; whether it hangs is for the test to say."""

    def __init__(self, on_hang: Callable[[str], None] | None = None, **limits: float) -> None:
        spec = SimpleNamespace(faults=FaultsConfig.model_validate(limits))
        self.place = SimpleNamespace(stored=SimpleNamespace(spec=spec))
        self.expired: str | None = None
        self.settle_hanging = on_hang or never

    def expire(self, reason: str) -> None:
        self.expired = reason


def never(reason: str) -> None:
    raise AssertionError(f"nothing hangs here: {reason}")


def watching(attempt: FalseAttempt, **settings: float) -> TimeLimits:
    return TimeLimits(cast(TrialInHand, attempt), **settings)


def epochs(*seconds: float) -> list[EpochReport]:
    return [EpochReport(epoch=n, lr=0.1, seconds=took) for n, took in enumerate(seconds)]


def wait_until_expired(attempt: FalseAttempt) -> str:
    for _ in range(6000):
        if attempt.expired is not None:
            return attempt.expired
        threading.Event().wait(0.01)
    raise AssertionError("the watchdog does not look at its clock")


def threads() -> int:
    return [thread.name for thread in threading.enumerate()].count("watchdog")


def test_without_limits_there_is_no_thread_and_no_end(clock: Clock) -> None:
    attempt = FalseAttempt()
    with watching(attempt) as limits:
        assert threads() == 0
        limits.epoch_starts([])
        clock.time += 1e9
        assert limits._find_excess() is None
    assert attempt.expired is None


@pytest.mark.parametrize("limit", ["max_trial_seconds", "max_epoch_seconds"])
def test_with_a_limit_a_thread_looks_until_the_trial_is_left(limit: str, clock: Clock) -> None:
    attempt = FalseAttempt(**{limit: 1000})
    with watching(attempt):
        assert threads() == 1
    assert threads() == 0
    assert attempt.expired is None


@pytest.mark.parametrize(
    ("limit", "what"), [("max_epoch_seconds", "an epoch"), ("max_trial_seconds", "the trial")]
)
def test_what_takes_too_long_is_said(limit: str, what: str, clock: Clock) -> None:
    attempt = FalseAttempt(**{limit: 0.5})
    with watching(attempt) as limits:
        limits.epoch_starts([])
        clock.time += 0.6
        assert wait_until_expired(attempt) == f"{what} took longer than {limit}=0.5"


def test_the_clock_of_an_epoch_starts_with_it(clock: Clock) -> None:
    limits = watching(FalseAttempt(max_epoch_seconds=10))
    for _ in range(5):
        limits.epoch_starts([])
        clock.time += 9
        assert limits._find_excess() is None
    clock.time += 2
    assert limits._find_excess() == "an epoch took longer than max_epoch_seconds=10"


def test_the_time_of_a_trial_is_that_of_its_epochs_in_all_attempts(clock: Clock) -> None:
    limits = watching(FalseAttempt(max_trial_seconds=100))
    clock.time += 1000
    limits.epoch_starts(epochs(40, 50))
    clock.time += 9
    assert limits._find_excess() is None, "interruptions are not counted, nor the time before"
    clock.time += 2
    assert limits._find_excess() == "the trial took longer than max_trial_seconds=100"


def test_time_is_up_at_once_where_earlier_attempts_took_it(clock: Clock) -> None:
    limits = watching(FalseAttempt(max_trial_seconds=100, max_epoch_seconds=1000))
    limits.epoch_starts(epochs(101))
    assert limits._find_excess() == "the trial took longer than max_trial_seconds=100"


def test_what_lies_between_two_epochs_counts_for_nothing(clock: Clock) -> None:
    """The set-up, and whatever waits for a storage that is away."""
    limits = watching(FalseAttempt(max_epoch_seconds=10, max_trial_seconds=10))
    clock.time += 1000
    assert limits._find_excess() is None
    limits.epoch_starts([])
    clock.time += 9
    limits.epoch_ends()
    clock.time += 1000
    assert limits._find_excess() is None


def test_a_training_that_does_not_react_is_settled_once(clock: Clock) -> None:
    reasons: list[str] = []
    called = threading.Event()

    def on_hang(reason: str) -> None:
        reasons.append(reason)
        called.set()

    attempt = FalseAttempt(on_hang, max_epoch_seconds=0.5)
    with watching(attempt, hang_s=30) as limits:
        limits.epoch_starts([])
        clock.time += 0.6
        wait_until_expired(attempt)
        assert not called.wait(0.3), "it has half a minute to notice"
        clock.time += 31
        assert called.wait(60)
        clock.time += 1000
        limits._thread.join(60)
        assert not limits._thread.is_alive()
    expected = "an epoch took longer than max_epoch_seconds=0.5, and the training did not react"
    assert reasons == [expected]


def test_a_training_that_leaves_in_time_does_not_hang(clock: Clock) -> None:
    attempt = FalseAttempt(max_epoch_seconds=0.5)
    with watching(attempt) as limits:
        limits.epoch_starts([])
        clock.time += 0.6
        wait_until_expired(attempt)
        clock.time += 29
    clock.time += 1000
    assert threads() == 0
    assert attempt.expired is not None


def test_whoever_settles_a_hanging_trial_may_leave_the_hook_from_its_own_thread(
    clock: Clock,
) -> None:
    left = threading.Event()

    def on_hang(reason: str) -> None:
        limits.__exit__(None, None, None)
        left.set()

    attempt = FalseAttempt(on_hang, max_epoch_seconds=0.5)
    limits = watching(attempt, hang_s=0)
    limits.__enter__()
    limits.epoch_starts([])
    clock.time += 0.6
    wait_until_expired(attempt)
    clock.time += 1
    assert left.wait(60)
    limits._thread.join(60)
