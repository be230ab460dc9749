"""Signals as a worker hears them: real ones, sent to a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from skdtune.signals import (
    INTERRUPTED_EXIT_CODE,
    SUPERVISED_VARIABLE,
    StopRequest,
    is_orphaned,
)

CHILD = """
import sys
from skdtune.signals import StopRequest

with StopRequest() as stop:
    print("ready", flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "state":
            print(f"interrupted={stop.interrupted} requested={stop.requested}", flush=True)
        elif word == "wait":
            print("waits", flush=True)
            stop.wait(3600)
            print("woke", flush=True)
        elif word == "leave":
            break
sys.exit(stop.exit_code)
"""

NOTHING = "interrupted=False requested=False"
DRAINING = "interrupted=False requested=True"
INTERRUPTED = "interrupted=True requested=True"


class Child:
    """A process inside of a stop request, that answers on its standard output."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.hear() == "ready"

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def state(self) -> str:
        self.tell("state")
        return self.hear()

    def leave(self) -> int:
        self.tell("leave")
        return self.process.wait()


@pytest.fixture
def child() -> Iterator[Child]:
    started = Child()
    yield started
    started.process.kill()
    started.process.communicate()


def test_without_a_signal_nothing_is_asked_for(child: Child) -> None:
    assert child.state == NOTHING
    assert child.leave() == 0


def test_sigint_asks_to_leave_now_and_the_exit_code_says_so(child: Child) -> None:
    child.send(signal.SIGINT)
    assert child.state == INTERRUPTED
    assert child.leave() == 130


def test_sigterm_asks_to_leave_now_and_is_no_failure(child: Child) -> None:
    child.send(signal.SIGTERM)
    assert child.state == INTERRUPTED
    assert child.leave() == 0


def test_sigusr1_asks_to_take_no_other_trial_but_to_finish_this_one(child: Child) -> None:
    child.send(signal.SIGUSR1)
    assert child.state == DRAINING
    assert child.leave() == 0


def test_sigcont_means_nothing(child: Child) -> None:
    child.send(signal.SIGCONT)
    assert child.state == NOTHING
    child.send(signal.SIGTERM)
    assert child.state == INTERRUPTED
    assert child.leave() == 0


def test_draining_can_still_be_interrupted(child: Child) -> None:
    child.send(signal.SIGUSR1)
    child.send(signal.SIGUSR1)
    assert child.state == DRAINING
    child.send(signal.SIGTERM)
    assert child.state == INTERRUPTED
    assert child.leave() == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_the_process_at_once(
    child: Child, first: signal.Signals, second: signal.Signals
) -> None:
    child.send(first)
    assert child.state == INTERRUPTED
    child.send(second)
    assert child.process.wait() == -second


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_wakes_who_waits(child: Child, number: signal.Signals) -> None:
    child.tell("wait")
    assert child.hear() == "waits"
    child.send(number)
    assert child.hear() == "woke"


HANDLERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def test_the_old_handlers_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number in HANDLERS]
    with StopRequest():
        inside = [signal.getsignal(number) for number in HANDLERS]
    assert all(old != new for old, new in zip(before, inside, strict=True))
    assert [signal.getsignal(number) for number in HANDLERS] == before


def test_the_old_handlers_are_back_after_the_first_interrupt() -> None:
    before = [signal.getsignal(number) for number in HANDLERS]
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.interrupted
        assert [signal.getsignal(number) for number in HANDLERS] == before


def test_the_old_handlers_are_back_after_an_error() -> None:
    before = [signal.getsignal(number) for number in HANDLERS]
    with pytest.raises(RuntimeError, match="in between"), StopRequest():
        raise RuntimeError("in between")
    assert [signal.getsignal(number) for number in HANDLERS] == before


def test_outside_of_the_main_thread_the_handlers_stay_as_they_are() -> None:
    before = [signal.getsignal(number) for number in HANDLERS]
    seen: list[object] = []

    def enter() -> None:
        with StopRequest() as stop:
            seen.extend(signal.getsignal(number) for number in HANDLERS)
            stop.drain()
            seen.append((stop.interrupted, stop.requested))
            stop.interrupt()
            seen.append((stop.interrupted, stop.requested))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [*before, (False, True), (True, True)]


def test_an_interrupt_by_a_program_is_no_ctrl_c() -> None:
    stop = StopRequest()
    stop.interrupt()
    assert stop.exit_code == 0
    assert INTERRUPTED_EXIT_CODE == 130


def test_nobody_waits_after_an_interrupt() -> None:
    stop = StopRequest()
    stop.interrupt()
    stop.wait(3600)
    assert stop.interrupted


@pytest.mark.parametrize(
    ("supervisor", "expected"),
    [(None, False), ("", False), (str(os.getppid()), False), ("1999999999", True)],
)
def test_a_process_is_orphaned_when_its_supervisor_is_not_its_parent(
    supervisor: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if supervisor is not None:
        monkeypatch.setenv(SUPERVISED_VARIABLE, supervisor)
    assert is_orphaned() is expected
