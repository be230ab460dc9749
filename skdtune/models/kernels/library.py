"""The C of this package as a library: built once on a machine, and checked before it is loaded.

    <folder>/skdtune-<what it was built from>-<SHA-256 of the file>.so

The name vouches for the content, so a file that was cut off or replaced is noticed, and what was
checked is what is loaded: a private copy in memory, which nobody can cut off later. A missing or
damaged library is built under one lock of the folder; whoever comes meanwhile waits for it.
Nothing here needs torch: `skdtune launch` builds the library before its workers start.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from skdtune.home import home

#: 0 to compute with torch alone, else the folder of the built library.
NATIVE_VARIABLE = "SKDTUNE_NATIVE"

_SOURCES = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
# torch has loaded its OpenMP by then, and the library uses the same threads. Apple has none.
_FLAG_SETS = (("-fopenmp",), ())

#: Seconds that a build may take, which takes two where nothing is wrong.
_BUILD_S = 120.0
#: Seconds to wait for another process that builds.
_WAIT_S = 1.5 * _BUILD_S
_SLICE_S = 0.1

# The compiler and all that it starts are a process group of their own. It ends with the process
# that asked for it, however that ends: its end of the pipe is closed then.
_GUARDED = """
exec 3<&0 </dev/null
(read -r nothing <&3; kill -s KILL 0) &
"$@" 3<&-
"""

logger = logging.getLogger(__name__)


class BuildLeftError(Exception):
    """Whoever asked for the library must leave before it is there."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Library:
    """A library whose content is what its name says."""

    path: Path
    content: bytes

    def load(self) -> ctypes.CDLL:
        """Load exactly this content.

        Raises:
            OSError: If the system cannot load it.
        """
        with contextlib.suppress(OSError, AttributeError):
            file = os.memfd_create(self.path.name, os.MFD_CLOEXEC)
            try:
                with open(file, "wb", closefd=False) as copy:
                    copy.write(self.content)
                # It stays open: the linker knows a library by its name, which is this number.
                return ctypes.CDLL(f"/proc/self/fd/{file}")
            except OSError:
                os.close(file)
        # No such files, or none that may be run. This one is only ever replaced as a whole.
        library = ctypes.CDLL(str(self.path))
        if _read_ours(self.path) != self.content:
            raise OSError(f"{self.path} was replaced while it was loaded")
        return library


def native_folder() -> Path | None:
    """Return the folder of the library; None if torch shall compute alone."""
    named = os.environ.get(NATIVE_VARIABLE)
    if named == "0":
        return None
    return Path(named) if named else home().cache / "native"


def ensure_library(
    folder: Path, *, must_leave: Callable[[], bool] = _never, instead_of: Library | None = None
) -> Library | None:
    """Return the library of a folder, built if it is missing or damaged.

    Args:
        folder: Where it lies; nobody else may be able to write there.
        must_leave: Asked while this waits.
        instead_of: One that is of no use, though it is whole.

    Returns:
        None if there is no library and no compiler.

    Raises:
        OSError: If it cannot be built, or is not only ours to write.
        BuildLeftError: If the caller must leave; nothing is left running.
    """
    # Who could write there could run code here.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _require_ours(folder, folder.stat())
    library = _find(folder, say=True)
    if library is not None and library != instead_of:
        _remove_left_over(folder)
        return library
    failure_before = _failure(folder)
    with _only_builder(folder, must_leave):
        shutil.rmtree(_scratch(folder), ignore_errors=True)
        library = _find(folder, say=False)
        if library is not None and library != instead_of:
            return library
        # What failed while this process waited would only fail again, for each that waits.
        failure = _failure(folder)
        if failure != failure_before:
            raise OSError(failure[1])
        commands = (os.environ.get("CC"), "cc", "gcc", "clang")
        compilers = (shutil.which(command) for command in commands if command)
        compiler = next((path for path in compilers if path), None)
        if compiler is None:
            logger.info("no C compiler: torch computes everything, which is slower")
            return None
        try:
            return _build(compiler, folder, must_leave)
        except OSError as error:
            with contextlib.suppress(OSError):
                _failure_note(folder).write_text(f"{error}", encoding="utf-8")
            raise
        finally:
            shutil.rmtree(_scratch(folder), ignore_errors=True)


def _find(folder: Path, *, say: bool) -> Library | None:
    """Return a library of these sources and this processor that is whole."""
    for path in _of_these_sources(folder):
        try:
            content = _read_ours(path)
        except FileNotFoundError:
            # Another process has just replaced it.
            continue
        if path.stem.endswith(f"-{hashlib.sha256(content).hexdigest()}"):
            return Library(path, content)
        if say:
            logger.warning("the built library %s is damaged: it is not used", path)
    return None


def _of_these_sources(folder: Path) -> list[Path]:
    """List what was built of these sources for this processor, with OpenMP first."""
    return [path for flags in _FLAG_SETS for path in folder.glob(f"skdtune-{_key(flags)}-*.so")]


def _build(compiler: str, folder: Path, must_leave: Callable[[], bool]) -> Library:
    """Build the library with the first set of flags that the compiler takes.

    Raises:
        OSError: If it takes none, or the folder cannot be written.
        BuildLeftError: If the caller must leave.
    """
    logger.info("building the kernels for this processor")
    scratch, deadline, problem = _scratch(folder), time.monotonic() + _BUILD_S, ""
    scratch.mkdir(mode=0o700)
    for flags in _FLAG_SETS:
        built = scratch / "library.so"
        source = str(_SOURCES / "kernels.c")
        command = [compiler, *_FLAGS, *flags, source, "-o", str(built), "-lm"]
        problem = _compile(command, scratch, deadline, must_leave)
        if problem:
            logger.debug("%s: %s", " ".join(command), problem)
            continue
        content = built.read_bytes()
        built.chmod(0o700)
        _write_through(built)
        name = f"skdtune-{_key(flags)}-{hashlib.sha256(content).hexdigest()}.so"
        library = Library(folder / name, content)
        os.replace(built, library.path)
        _write_through(folder)
        for other in _of_these_sources(folder):
            if other != library.path:
                other.unlink()
        _failure_note(folder).unlink(missing_ok=True)
        return library
    raise OSError(problem)


def _compile(
    command: list[str], scratch: Path, deadline: float, must_leave: Callable[[], bool]
) -> str:
    """Run a compiler, and end it with all that it started where it takes too long.

    Returns:
        What it objects to; empty if it is done.

    Raises:
        TimeoutError: If it takes too long.
        BuildLeftError: If the caller must leave.
    """
    said = scratch / "said"
    with said.open("wb") as errors:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDED, "skdtune", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            # What a compiler that is killed leaves behind goes with the scratch folder.
            env={**os.environ, "TMPDIR": str(scratch)},
            start_new_session=True,
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = guard.wait(timeout=_SLICE_S)
                break
            if must_leave():
                raise BuildLeftError
            if time.monotonic() > deadline:
                raise TimeoutError(f"{command[0]} was not done after {_BUILD_S:g} seconds")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guard.pid, signal.SIGKILL)
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()
    words = said.read_text(encoding="utf-8", errors="replace").strip()
    return "" if code == 0 else words or f"{command[0]} failed"


@contextlib.contextmanager
def _only_builder(folder: Path, must_leave: Callable[[], bool]) -> Iterator[None]:
    """Hold the right to build in a folder; the system takes it from whoever dies.

    Raises:
        OSError: If that cannot be had, or took too long.
        BuildLeftError: If the caller must leave.
    """
    lock, deadline, has_said = FileLock(folder / ".lock"), time.monotonic() + _WAIT_S, False
    while True:
        try:
            lock.acquire(timeout=_SLICE_S)
            break
        except Timeout:
            pass
        except NotImplementedError as error:
            raise OSError(f"{folder} knows no locks: {NATIVE_VARIABLE} names another") from error
        if must_leave():
            raise BuildLeftError
        if time.monotonic() > deadline:
            raise OSError(f"another process still builds there after {_WAIT_S:g} seconds")
        if not has_said:
            logger.info("waiting for another process that builds the kernels")
            has_said = True
    try:
        yield
    finally:
        lock.release()


def _remove_left_over(folder: Path) -> None:
    """Remove what a builder left that died between its library and its scratch folder."""
    if _scratch(folder).exists():
        lock = FileLock(folder / ".lock", timeout=0)
        with contextlib.suppress(OSError, NotImplementedError), lock:
            shutil.rmtree(_scratch(folder), ignore_errors=True)


def _scratch(folder: Path) -> Path:
    return folder / ".build"


def _failure_note(folder: Path) -> Path:
    return folder / f".failed-{_key(())}"


def _failure(folder: Path) -> tuple[int, str]:
    """Return when a build failed last, and why; (0, "") if the last one went well."""
    note = _failure_note(folder)
    try:
        return note.stat().st_mtime_ns, note.read_text(encoding="utf-8")
    except OSError:
        return 0, ""


def _read_ours(path: Path) -> bytes:
    """Read a file that nobody else could have written."""
    with path.open("rb") as file:
        _require_ours(path, os.fstat(file.fileno()))
        return file.read()


def _require_ours(path: Path, status: os.stat_result) -> None:
    """Refuse a file or folder that somebody else could have written."""
    if not hasattr(os, "geteuid"):
        return
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(
            f"{path} belongs to somebody else, or others may write to it; "
            f"set {NATIVE_VARIABLE} to a folder of your own"
        )


def _write_through(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _key(flags: tuple[str, ...]) -> str:
    """Hash all that decides what is built: a home may be shared by different machines."""
    sources = [path.read_bytes() for path in sorted(_SOURCES.glob("*.[ch]"))]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        wanted = ("model name", "flags", "Features", "CPU part")
        processor = "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    except OSError:
        processor = f"{platform.machine()} {platform.processor()}"
    parts = [*sources, processor.encode(), *(flag.encode() for flag in (*_FLAGS, *flags))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
