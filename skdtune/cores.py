"""The cores of this machine: how many this process may use, and how many others leave to it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

#: Where set, it decides how many threads a process computes with.
THREADS_VARIABLE = "OMP_NUM_THREADS"

_CGROUP = Path("/sys/fs/cgroup")

#: Seconds that the cores are watched at least: the system counts in hundredths.
_LEAST_S = 0.25
#: Seconds after which what the cores did before says nothing of now.
_RECENT_S = 10.0


def num_cores(cgroup: Path = _CGROUP) -> int:
    """Count the cores that this process may use, whole ones only, at least 1.

    A container may see all cores of its machine and still be allowed the time of only a few.

    Args:
        cgroup: Folder of the control group, as a container sees its own.
    """
    cores = len(_allowed_cores())
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(quota)))


class CoreWatch:
    """Tells how many cores other processes leave to this one.

    Args:
        cgroup: Folder of the control group, as a container sees its own.
    """

    def __init__(self, cgroup: Path = _CGROUP) -> None:
        self._cgroup = cgroup
        self._before = _look(cgroup)

    def num_free(self) -> float:
        """Return the cores that others did not use since this was last asked.

        Where that was just now, or long ago, the cores are watched for a quarter of a second.
        """
        now = _look(self._cgroup)
        if not _LEAST_S <= now.at - self._before.at <= _RECENT_S:
            self._before = now
            time.sleep(_LEAST_S)
            now = _look(self._cgroup)
        before, self._before = self._before, now
        seconds = now.at - before.at
        # What this process took itself it may take again.
        own = now.own_s - before.own_s
        free = (now.idle_s - before.idle_s + own) / seconds
        quota = _quota(self._cgroup)
        if quota is not None:
            free = min(free, quota - (now.group_s - before.group_s - own) / seconds)
        return free


@dataclass(frozen=True)
class _Look:
    """Seconds that were spent in all until a moment."""

    at: float
    idle_s: float
    """By the cores that this process may use, on nothing."""

    own_s: float
    """By this process, on any core."""

    group_s: float
    """By its control group; 0 without one."""


def _look(cgroup: Path) -> _Look:
    # A machine that only describes studies need not load it.
    import psutil

    allowed = _allowed_cores()
    cores = psutil.cpu_times(percpu=True)
    idle_s = sum(
        times.idle + getattr(times, "iowait", 0.0)
        for core, times in enumerate(cores)
        if core in allowed
    )
    group_s = 0.0
    try:
        for line in (cgroup / "cpu.stat").read_text(encoding="utf-8").splitlines():
            if line.startswith("usage_usec "):
                group_s = int(line.split()[1]) / 1e6
    except (OSError, ValueError):
        # No control group, or one that counts nothing.
        pass
    return _Look(time.monotonic(), idle_s, time.process_time(), group_s)


def _allowed_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _quota(cgroup: Path) -> float | None:
    """Return the cores' worth of time that a control group may take; None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        # No control group, or one without a limit ("max").
        return None
