"""The C part is built once, by one process, and loaded only as it was built."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from skdtune.models.kernels import library
from skdtune.models.kernels.library import BuildLeftError, Library, ensure_library

#: Only a hanging process is ended by it.
PATIENCE_S = 60.0

ENSURE = """
import logging, sys
from pathlib import Path
from skdtune.models.kernels.library import ensure_library
logging.basicConfig(level=logging.INFO)
print(ensure_library(Path(sys.argv[1])).path.name)
assert "torch" not in sys.modules
"""

MakeCompiler = Callable[[str], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "native"


@pytest.fixture
def make_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCompiler:
    """Make ``CC`` a script that writes a line for each call; it shall write its output to $out."""

    def make(script: str) -> Path:
        compiler, calls = tmp_path / "cc", tmp_path / "calls"
        find_out = 'while [ "$1" != -o ]; do shift; done; out=$2'
        compiler.write_text(f"#!/bin/sh\necho called >> {calls}\n{find_out}\n{script}\n")
        compiler.chmod(0o755)
        calls.touch()
        monkeypatch.setenv("CC", str(compiler))
        return calls

    return make


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start processes that need the library."""
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-c", ENSURE, str(folder)]
        started.append(subprocess.Popen(command, text=True, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


def all_gone(pids: Path) -> bool:
    """Tell whether none of the processes of a file is left, but for zombies."""
    for pid in map(int, pids.read_text().split()):
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True


#: Starts a process of its own, as gcc does, and hangs; both leave half of what they write.
HANG = """
touch "$TMPDIR/half.s"
sleep 3600 &
echo $! $$ > {pids}.new
mv {pids}.new {pids}
wait
"""


@pytest.mark.parametrize("damage", [b"", b"\x7fELF and no more", None])
def test_a_damaged_library_is_built_anew_and_that_is_said(
    folder: Path,
    make_compiler: MakeCompiler,
    caplog: pytest.LogCaptureFixture,
    damage: bytes | None,
) -> None:
    calls = make_compiler("echo whole > $out")
    first = ensure_library(folder)
    assert first is not None
    assert ensure_library(folder) == first
    assert calls.read_text() == "called\n"
    first.path.write_bytes(first.content + b"longer" if damage is None else damage)
    again = ensure_library(folder)
    assert again == first
    assert first.path.read_bytes() == b"whole\n"
    assert calls.read_text() == "called\ncalled\n"
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"the built library {first.path} is damaged: it is not used"
    ]


def test_one_of_many_processes_compiles_and_the_others_wait(
    folder: Path,
    tmp_path: Path,
    make_compiler: MakeCompiler,
    start: Callable[[], subprocess.Popen[str]],
) -> None:
    calls = make_compiler(f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo whole > $out")
    builder = start()
    until(calls.read_text, "the compiler was called")
    others = [start(), start()]
    for other in others:
        assert other.stderr is not None
        assert "waiting for another process that builds the kernels" in other.stderr.readline()
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=PATIENCE_S)[0] for process in (builder, *others)]
    assert [process.returncode for process in (builder, *others)] == [0, 0, 0]
    assert len(set(said)) == 1
    assert calls.read_text() == "called\n"
    assert [path.name for path in folder.glob("[!.]*")] == [said[0].strip()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_compiler_ends_with_the_process_that_called_it_and_leaves_nothing(
    folder: Path,
    tmp_path: Path,
    make_compiler: MakeCompiler,
    start: Callable[[], subprocess.Popen[str]],
    number: signal.Signals,
) -> None:
    pids = tmp_path / "pids"
    make_compiler(HANG.format(pids=pids))
    builder = start()
    until(pids.exists, "the compiler hangs")
    assert (folder / ".build" / "half.s").exists()
    builder.send_signal(number)
    builder.communicate(timeout=PATIENCE_S)
    until(lambda: all_gone(pids), "the compiler is gone")
    make_compiler("echo whole > $out")
    whole = ensure_library(folder)
    assert whole is not None
    assert not (folder / ".build").exists()


def test_what_a_builder_left_that_died_at_its_very_end_is_removed(
    folder: Path, make_compiler: MakeCompiler
) -> None:
    calls = make_compiler("echo whole > $out")
    whole = ensure_library(folder)
    (folder / ".build").mkdir()
    assert ensure_library(folder) == whole
    assert not (folder / ".build").exists()
    assert calls.read_text() == "called\n"


def test_who_must_leave_waits_for_no_compiler_and_for_nobody(
    folder: Path, tmp_path: Path, make_compiler: MakeCompiler
) -> None:
    pids = tmp_path / "pids"
    calls = make_compiler(HANG.format(pids=pids))
    with pytest.raises(BuildLeftError):
        ensure_library(folder, must_leave=pids.exists)
    until(lambda: all_gone(pids), "the compiler is gone")
    assert not (folder / ".build").exists()
    with FileLock(folder / ".lock"), pytest.raises(BuildLeftError):
        ensure_library(folder, must_leave=lambda: True)
    assert calls.read_text() == "called\n"


def test_nothing_is_waited_for_without_end(
    folder: Path,
    tmp_path: Path,
    make_compiler: MakeCompiler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pids = tmp_path / "pids"
    make_compiler(HANG.format(pids=pids))
    monkeypatch.setattr(library, "_BUILD_S", 1.0)
    with pytest.raises(TimeoutError, match="was not done after 1 seconds"):
        ensure_library(folder)
    until(lambda: all_gone(pids), "the compiler is gone")
    monkeypatch.setattr(library, "_WAIT_S", 0.2)
    with FileLock(folder / ".lock"), pytest.raises(OSError, match="another process still builds"):
        ensure_library(folder)


def test_what_failed_while_a_process_waited_is_not_tried_again_by_it(
    folder: Path, make_compiler: MakeCompiler
) -> None:
    calls = make_compiler("echo broken >&2; exit 1")
    with pytest.raises(OSError, match="broken"):
        ensure_library(folder)
    tried = calls.read_text()
    with FileLock(folder / ".lock") as lock:

        def fail_elsewhere() -> bool:
            library._failure_note(folder).write_text("a hanging disk")
            lock.release()
            return False

        with pytest.raises(OSError, match="a hanging disk"):
            ensure_library(folder, must_leave=fail_elsewhere)
    assert calls.read_text() == tried
    # A later start tries again, and what succeeds is not held against anybody.
    make_compiler("echo whole > $out")
    assert ensure_library(folder) is not None


def test_a_folder_with_a_good_library_is_only_read(
    folder: Path, make_compiler: MakeCompiler
) -> None:
    make_compiler("echo whole > $out")
    whole = ensure_library(folder)
    (folder / ".lock").unlink(missing_ok=True)
    before = folder.stat().st_mtime_ns
    assert ensure_library(folder) == whole
    assert folder.stat().st_mtime_ns == before


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_what_was_loaded_cannot_be_cut_off(tmp_path: Path) -> None:
    source, built = tmp_path / "answer.c", tmp_path / "answer.so"
    source.write_text("int answer(void) { return 42; }")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", built], check=True)
    # In a process of its own, which SIGBUS would end.
    code = (
        "import os; from pathlib import Path\n"
        "from skdtune.models.kernels.library import Library\n"
        f"path = Path({str(built)!r}); loaded = Library(path, path.read_bytes()).load()\n"
        "os.truncate(path, 0); print(loaded.answer())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"


def test_a_library_that_others_could_have_written_is_refused(
    folder: Path, make_compiler: MakeCompiler
) -> None:
    make_compiler("echo whole > $out")
    whole = ensure_library(folder)
    assert isinstance(whole, Library)
    assert whole.path.stat().st_mode & 0o777 == 0o700
    whole.path.chmod(0o722)
    with pytest.raises(PermissionError, match="others may write to it"):
        ensure_library(folder)
    os.chmod(folder, 0o777)
    with pytest.raises(PermissionError, match="SKDTUNE_NATIVE"):
        ensure_library(folder)
