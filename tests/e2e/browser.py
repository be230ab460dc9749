"""A real browser for the tests of pages, spoken to over a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


class Browser:
    """A headless Chromium that reaches this machine only; driven by its DevTools protocol.

    Args:
        program: Its executable.
        profile: An empty folder.
        names: Host names that mean this machine.
    """

    def __init__(self, program: str, profile: Path, names: Sequence[str] = ()) -> None:
        # Far from 3 and 4, which the browser reads and writes.
        ours_in, theirs_out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in os.pipe())
        theirs_in, ours_out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in os.pipe())
        arguments = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--enable-unsafe-swiftshader",
            "--proxy-server=127.0.0.1:9",
            f"--proxy-bypass-list={';'.join(names)}",
            f"--host-resolver-rules={','.join(f'MAP {name} 127.0.0.1' for name in names)}",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
            "--window-size=1300,900",
            "about:blank",
        ]
        self._pid = os.posix_spawn(
            program,
            arguments,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                (os.POSIX_SPAWN_DUP2, theirs_out, 4),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._answers = os.fdopen(ours_in, "rb")
        self._requests = os.fdopen(ours_out, "wb")
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Ask for something and wait for the answer; what happens meanwhile is kept."""
        self._number += 1
        request: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            request["sessionId"] = self._session
        self._requests.write(json.dumps(request).encode() + b"\0")
        self._requests.flush()
        while True:
            message = self._next_message()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def _next_message(self) -> Any:
        while b"\0" not in self._unread:
            received = os.read(self._answers.fileno(), 1 << 20)
            assert received, "the browser is gone"
            self._unread += received
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def run(self, script: str) -> Any:
        """Run JavaScript on the page, wait for what it promises, and return its value."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url: str) -> None:
        """Load a page and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, condition: str) -> None:
        """Wait until JavaScript calls something true."""
        deadline = time.monotonic() + 60
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"waited in vain until {condition}"
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """List errors and warnings of the console, uncaught exceptions and refused requests."""
        self.run("1")
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"])[:2000])
            elif event.get("method") == "Runtime.consoleAPICalled":
                if params["type"] in ("error", "warning", "assert"):
                    found.append(json.dumps(params["args"])[:2000])
            elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in (
                "error",
                "warning",
            ):
                found.append(json.dumps(params["entry"])[:2000])
        return found

    def requested(self) -> list[str]:
        """List the addresses that the page asked for."""
        self.run("1")
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        self._session = None
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._answers.close()
        self._requests.close()


def find_chromium() -> str:
    """Return the program; skip the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if program := shutil.which(name):
            return program
    pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
