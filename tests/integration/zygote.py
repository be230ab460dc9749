"""Starts worker processes in milliseconds: everything slow is imported once, then forked.

Reads one JSON request per line and answers with one JSON line. What it starts are real processes
with an environment, a folder and a session of their own; only the import of torch is saved.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import sys
import time
from typing import Any, NoReturn

import skdtune
from skdtune.__main__ import main

#: What a command imports in the middle of its work.
IMPORTED_LATE = (
    "alembic.context",
    "alembic.script",
    "psycopg",
    "safetensors.torch",
    "sklearn.datasets",
    "torch.export",
    "torchmetrics.functional.classification",
)
for name in (
    *IMPORTED_LATE,
    *(m.name for m in pkgutil.walk_packages(skdtune.__path__, "skdtune.")),
):
    importlib.import_module(name)


def start(request: dict[str, Any]) -> int:
    """Fork a process that runs the command line, after some code of the test's."""
    pid = os.fork()
    if pid == 0:
        become(request)
    return pid


def become(request: dict[str, Any]) -> NoReturn:
    """Be the process that was asked for."""
    code = 1
    try:
        os.setsid()
        for number, path in ((1, request["out"]), (2, request["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        exec(request["code"], {"__name__": "injected"})
        if request["arguments"]:
            main(request["arguments"])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """Return the exit code as subprocess does, None if the process still lives."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def serve() -> None:
    """Answer requests until there are none left, then end what still runs."""
    living: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            answer: int | None = start(request)
            living.add(answer or 0)
        else:
            answer = wait(request["pid"], request["seconds"])
            if answer is not None:
                living.discard(request["pid"])
        print(json.dumps(answer), flush=True)
    for pid in living:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
