"""What the end-to-end tests share: long-lived processes, a tiny study, and patience."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., "subprocess.Popen[bytes]"]
Eventually = Callable[..., Any]

#: Trains in seconds: trial 0 learns, trial 1 cannot, and is not pruned because a person queued it.
TINY_STUDY = """
extends: [data/digits, methods/baseline]
description: "digits, a narrow network: plain cross-entropy"
data: {batch_size: 32}
model: {width: 4}
budget: {epochs: 3}
num_trials: 4
pruner: {name: median, num_startup_trials: 1, warmup_epochs: 1}
search:
  optimizer.lr:
    {type: float, low: 1.0e-7, high: 0.5, log: true, reason: "REASON"}
enqueue:
  - {optimizer.lr: 1.0e-7, optimizer.weight_decay: 5.0e-4}
"""


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a study that trains in seconds."""
    file = tmp_path_factory.mktemp("study") / "tiny.yaml"
    # A table cell with a bar in it, and a note too long for one attribute of the storage.
    file.write_text(TINY_STUDY.replace("REASON", "too slow | too fast " + "and so on " * 250))
    return file


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start the command line in the background; what still runs at the end is killed."""

    def start(
        *arguments: str, log: Path, env: Mapping[str, str | None], clean: bool = False
    ) -> subprocess.Popen[bytes]:
        merged = {**({} if clean else os.environ), **env}
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "skdtune", *arguments],
                env={name: value for name, value in merged.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started.callback(end, process)
        return process

    def end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    with ExitStack() as started:
        yield start


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Wait until a condition holds and return its value; give up when the process is gone."""

    def eventually(
        condition: Callable[[], Any],
        *,
        process: subprocess.Popen[bytes] | None = None,
        log: Path | None = None,
        timeout: float = 90,
    ) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            gone = process is not None and process.poll() is not None
            if found := condition():
                return found
            if gone or time.monotonic() > deadline:
                said = log.read_text() if log is not None and log.exists() else ""
                pytest.fail(f"{'the process ended' if gone else 'it never came'}: {said}")
            time.sleep(0.1)

    return eventually
