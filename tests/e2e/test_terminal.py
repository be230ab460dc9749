"""`launch`, `train` and `status --watch` in a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]
Open = Callable[..., "Terminal"]

CTRL_C = b"\x03"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@dataclass
class Terminal:
    """A command in a terminal of its own, 160 characters wide."""

    process: subprocess.Popen[bytes]
    master: int
    slave: int
    modes: list[object]
    raw: bytearray = field(default_factory=bytearray)

    @property
    def output(self) -> str:
        """Everything written so far, with its control sequences."""
        return self.raw.decode(errors="replace")

    @property
    def text(self) -> str:
        """Everything written so far, without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.output)

    def wait_for(self, *patterns: str, timeout: float = 120) -> None:
        """Read until each pattern has been written."""
        deadline = time.monotonic() + timeout
        while missing := [p for p in patterns if not re.search(p, self.text)]:
            gone = self.process.poll() is not None and not self._read()
            if gone or time.monotonic() > deadline:
                pytest.fail(f"never came: {missing}\n{self.text[-3000:]}")
            self._read()

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self.master, key)

    def end(self, timeout: float = 120) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text[-3000:]
            self._read()
        while self._read():
            pass
        return self.process.returncode

    def _read(self) -> bool:
        ready, _, _ = select.select([self.master], [], [], 0.2)
        if ready:
            self.raw += os.read(self.master, 65536)
        return bool(ready)


def take_terminal() -> None:
    """Make standard input the session's terminal: only then does Ctrl-C become a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if hasattr(os, "sched_setaffinity"):
        # One worker with one thread: several threads wait for each other on a busy machine.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


@pytest.fixture
def open_terminal() -> Iterator[Open]:
    """Run the command line in a terminal of its own, as a person does."""
    opened: list[Terminal] = []

    def open_terminal(*arguments: str) -> Terminal:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        modes = termios.tcgetattr(slave)
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
        process = subprocess.Popen(
            [sys.executable, "-m", "skdtune", *arguments],
            env={**environment, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        opened.append(Terminal(process, master, slave, modes))
        return opened[-1]

    yield open_terminal
    for terminal in opened:
        with contextlib.suppress(ProcessLookupError):
            terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)
        os.close(terminal.slave)


@pytest.fixture
def tiny(run_cli: RunCli, tiny_study: Path) -> Callable[..., None]:
    """Create the tiny study, with changes."""

    def create(*changes: str) -> None:
        created = run_cli("create-study", str(tiny_study), *changes)
        assert created.returncode == 0, created.stderr

    return create


def assert_is_sane(terminal: Terminal) -> None:
    """Assert that the terminal is as it was: the cursor shown, its modes unchanged."""
    assert HIDE_CURSOR in terminal.output, "the cursor was never hidden: no live table"
    assert terminal.output.rfind(SHOW_CURSOR) > terminal.output.rfind(HIDE_CURSOR)
    assert termios.tcgetattr(terminal.slave) == terminal.modes
    assert "Traceback" not in terminal.text


def test_live_table_follows_the_study_to_its_end(
    tiny: Callable[..., None], open_terminal: Open, run_cli: RunCli
) -> None:
    tiny()

    terminal = open_terminal("launch", "tiny", "--gpus", "none", "--workers", "1")

    assert terminal.end() == 0
    assert_is_sane(terminal)
    assert "tiny  digits, a narrow network: plain cross-entropy" in terminal.text
    assert "0/4 trials: 4 waiting; no trial complete yet" in terminal.text
    end = terminal.text.rstrip().splitlines()
    # How many are pruned depends on how this processor rounds; the storage knows.
    states = [trial["state"] for trial in json.loads(run_cli("trials", "tiny", "--json").stdout)]
    complete, pruned = states.count("complete"), states.count("pruned")
    assert (complete + pruned, min(complete, pruned) > 0) == (4, True)
    assert end[-1] == f"tiny: {complete} complete, {pruned} pruned, 0 failed"
    # The table drawn last stays on the screen.
    counts = f"4/4 trials: {complete} complete, {pruned} pruned; "
    finished = counts + r"best \d+\.\d\d% \(trial \d\); finished"
    assert any(re.search(finished, line) for line in end[-6:])


def test_live_table_shows_states_best_time_left_and_ctrl_c_drains(
    tiny: Callable[..., None], open_terminal: Open, run_cli: RunCli
) -> None:
    tiny("--trials", "500", "--set", "budget.epochs=10", "--set", "pruner.name=none")
    terminal = open_terminal("launch", "tiny", "--gpus", "none", "--workers", "1")
    terminal.wait_for(
        r"\d/500 trials: 1 running, \d complete, 49\d waiting; "
        r"best \d+\.\d\d% \(trial \d\); about \d+ (s|min|h)[^;]* left",
        r"host +pid +device +trial +epoch +since +last sign of life",
        r"cpu +\d+ +\d+/10 +\d+ s +\d+ s ago",
        r"passed, 1 workers, logs in ",
    )

    terminal.press(CTRL_C)
    terminal.wait_for("finishing the trials in hand; Ctrl-C again gives them back")

    assert terminal.end() == 130
    assert_is_sane(terminal)
    assert re.search(r"stopped; 4\d\d trials wait: skdtune launch tiny\s*$", terminal.text)
    status = run_cli("status", "tiny").stdout
    assert "running" not in status
    assert re.search(r"\d/500 trials: \d+ complete, 4\d\d waiting", status)


def test_watched_status_ends_on_ctrl_c(tiny: Callable[..., None], open_terminal: Open) -> None:
    tiny()
    terminal = open_terminal("status", "tiny", "--watch")
    terminal.wait_for("0/4 trials: 4 waiting; no trial complete yet")

    terminal.press(CTRL_C)

    assert terminal.end() == 130
    assert_is_sane(terminal)
    assert terminal.text.rstrip().endswith("skdtune: interrupted")


def test_who_deletes_a_study_is_shown_it_and_asked(
    tiny: Callable[..., None], open_terminal: Open, run_cli: RunCli
) -> None:
    tiny()
    for answer, code in ((b"n\n", 1), (b"y\n", 0)):
        terminal = open_terminal("delete", "tiny")
        terminal.wait_for(r"tiny: 4 trials \(4 waiting\), 0 artifacts", r"Delete all of it\?")
        assert json.loads(run_cli("status", "tiny", "--json").stdout)["num_trials"] == 4
        terminal.press(answer)
        assert terminal.end() == code
    assert "deleted tiny: 4 trials" in terminal.text
    assert run_cli("status", "tiny").returncode == 2


def test_a_training_is_drawn_as_it_goes_on_and_ctrl_c_leaves_it(
    open_terminal: Open, tmp_path: Path
) -> None:
    tiny = ("--set", "model.width=4", "--epochs", "5000", "--threads", "1")
    terminal = open_terminal("train", "digits-drg", *tiny, "-o", str(tmp_path / "run"))
    terminal.wait_for(
        r"digits-drg  1,010 images to learn from, 337 to judge by; cpu",
        r"[2-9]/5000 epochs  [\d,]+ images/s  \d+ (s|min)[^\n]* left",
        r"loss cross_entropy +loss drg +loss aux_ce +validation accuracy +learning rate",
        r"\d+\.\d\d% +[▁▂▃▄▅▆▇█]{2}",
    )
    terminal.press(CTRL_C)
    assert terminal.end() == 130
    assert_is_sane(terminal)
    assert re.search(r"stopped after epoch \d+ of 5000, which \S+ keeps", terminal.text)
