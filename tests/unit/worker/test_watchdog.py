from __future__ import annotations

import threading

import pytest

from skdtune.describe.faults import FaultsConfig
from skdtune.worker import watchdog
from skdtune.worker.watchdog import Settlement, Watchdog


class Clock:
    """A clock that the test puts forward; its readers are told apart by nothing."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(watchdog, "time", found)
    return found


def never(reason: str) -> None:
    raise AssertionError(f"nothing hangs here: {reason}")


def make_watchdog(**limits: float) -> Watchdog:
    return Watchdog(FaultsConfig.model_validate(limits), never)


def wait_until_expired(found: Watchdog) -> str:
    for _ in range(6000):
        if found.expired is not None:
            return found.expired
        threading.Event().wait(0.01)
    raise AssertionError("the watchdog does not look at its clock")


def threads() -> int:
    return [thread.name for thread in threading.enumerate()].count("watchdog")


def test_without_limits_there_is_no_thread_and_no_end(clock: Clock) -> None:
    with make_watchdog() as found:
        assert threads() == 0
        found.epoch_started(0)
        clock.time += 1e9
        assert found.expired is None
        assert found.epoch_s == 1e9


@pytest.mark.parametrize("limit", ["max_trial_seconds", "max_epoch_seconds"])
def test_with_a_limit_a_thread_looks_until_the_trial_is_left(limit: str, clock: Clock) -> None:
    with make_watchdog(**{limit: 1000}) as found:
        assert threads() == 1
    assert threads() == 0
    assert found.expired is None


def test_an_epoch_that_takes_too_long_is_said(clock: Clock) -> None:
    with make_watchdog(max_epoch_seconds=0.5) as found:
        found.epoch_started(0)
        clock.time += 0.6
        assert wait_until_expired(found) == "an epoch took longer than max_epoch_seconds=0.5"


def test_a_trial_that_takes_too_long_is_said(clock: Clock) -> None:
    with make_watchdog(max_trial_seconds=0.5) as found:
        found.epoch_started(0)
        clock.time += 0.6
        assert wait_until_expired(found) == "the trial took longer than max_trial_seconds=0.5"


def test_the_clock_of_an_epoch_starts_with_it(clock: Clock) -> None:
    found = make_watchdog(max_epoch_seconds=10)
    for _ in range(5):
        found.epoch_started(0)
        clock.time += 9
        assert found.epoch_s == 9
        assert found._find_excess() is None
    clock.time += 2
    assert found._find_excess() == "an epoch took longer than max_epoch_seconds=10"


def test_the_time_of_a_trial_is_that_of_its_epochs_in_all_attempts(clock: Clock) -> None:
    found = make_watchdog(max_trial_seconds=100)
    clock.time += 1000
    found.epoch_started(spent_s=90)
    clock.time += 9
    assert found._find_excess() is None, "interruptions are not counted, nor the time before"
    clock.time += 2
    assert found._find_excess() == "the trial took longer than max_trial_seconds=100"


def test_time_is_up_at_once_where_earlier_attempts_took_it(clock: Clock) -> None:
    found = make_watchdog(max_trial_seconds=100, max_epoch_seconds=1000)
    found.epoch_started(spent_s=101)
    assert found._find_excess() == "the trial took longer than max_trial_seconds=100"


def test_what_lies_between_two_epochs_counts_for_nothing(clock: Clock) -> None:
    """The set-up, and whatever waits for a storage that is away."""
    found = make_watchdog(max_epoch_seconds=10, max_trial_seconds=10)
    clock.time += 1000
    assert (found.epoch_s, found._find_excess()) == (0, None)
    found.epoch_started(0)
    clock.time += 9
    found.epoch_ended()
    clock.time += 1000
    assert (found.epoch_s, found._find_excess()) == (0, None)


def test_one_of_two_threads_settles_a_trial_and_the_other_can_wait_for_it() -> None:
    settlement, settled = Settlement(), threading.Event()
    assert settlement.take()
    assert not settlement.take()
    waiting = threading.Thread(target=lambda: (settlement.wait(), settled.set()))
    waiting.start()
    assert not settled.wait(0.1)
    settlement.finish()
    assert settled.wait(60)


def test_a_training_that_does_not_react_is_ended_once(clock: Clock) -> None:
    reasons: list[str] = []
    called = threading.Event()

    def on_hang(reason: str) -> None:
        reasons.append(reason)
        called.set()

    faults = FaultsConfig(max_epoch_seconds=0.5)
    with Watchdog(faults, on_hang, hang_s=30) as found:
        found.epoch_started(0)
        clock.time += 0.6
        wait_until_expired(found)
        assert not called.wait(0.3), "it has half a minute to notice"
        clock.time += 31
        assert called.wait(60)
        clock.time += 1000
        found._thread.join(60)
        assert not found._thread.is_alive()
    expected = "an epoch took longer than max_epoch_seconds=0.5, and the training did not react"
    assert reasons == [expected]


def test_a_training_that_leaves_in_time_does_not_hang(clock: Clock) -> None:
    with make_watchdog(max_epoch_seconds=0.5) as found:
        found.epoch_started(0)
        clock.time += 0.6
        wait_until_expired(found)
        clock.time += 29
    clock.time += 1000
    assert threads() == 0
    assert found.expired is not None


def test_whoever_settles_a_hanging_trial_may_leave_the_watchdog_from_its_own_thread(
    clock: Clock,
) -> None:
    left = threading.Event()

    def on_hang(reason: str) -> None:
        found.__exit__(None, None, None)
        left.set()

    found = Watchdog(FaultsConfig(max_epoch_seconds=0.5), on_hang, hang_s=0)
    found.__enter__()
    found.epoch_started(0)
    clock.time += 0.6
    wait_until_expired(found)
    clock.time += 1
    assert left.wait(60)
    found._thread.join(60)
