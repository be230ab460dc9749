"""How many cores this process may use, and how many others leave to it."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from skdtune import cores
from skdtune.cores import CoreWatch, num_cores

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", CORES),
        ("100000 100000", 1),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1000000000 100000", CORES),
        ("nonsense", CORES),
        ("", CORES),
        ("100000 0", CORES),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, limit: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    assert num_cores(tmp_path) == expected


def test_without_a_limit_all_cores_count(tmp_path: Path) -> None:
    assert num_cores(tmp_path) == CORES


class Machine:
    """Four cores whose counters a test moves on; sleeping takes no time."""

    def __init__(self, cgroup: Path) -> None:
        self.cgroup = cgroup
        self.now = self.own = self.group = 0.0
        self.idle = [0.0] * 4
        #: What happens in a second.
        self.busy_cores, self.own_cores = 0, 0.0
        self.slept: list[float] = []

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.own += self.own_cores * seconds
        self.group += (self.busy_cores + self.own_cores) * seconds
        left = 4 - self.busy_cores - self.own_cores
        self.idle = [spent + left / 4 * seconds for spent in self.idle]
        (self.cgroup / "cpu.stat").write_text(f"usage_usec {int(self.group * 1e6)}\nuser_usec 1\n")

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        own, self.own_cores = self.own_cores, 0.0
        self.pass_time(seconds)
        self.own_cores = own


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    times = namedtuple("times", ["user", "idle"])
    monkeypatch.setattr(cores, "_allowed_cores", lambda: set(range(4)))
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [times(0, s) for s in machine.idle])
    monkeypatch.setattr(cores.time, "monotonic", lambda: machine.now)
    monkeypatch.setattr(cores.time, "process_time", lambda: machine.own)
    monkeypatch.setattr(cores.time, "sleep", machine.sleep)
    return machine


def test_what_this_process_took_itself_is_free(machine: Machine) -> None:
    watch = CoreWatch(machine.cgroup)
    machine.busy_cores, machine.own_cores = 1, 2.0
    machine.pass_time(2.0)
    assert watch.num_free() == pytest.approx(3)
    machine.busy_cores = 2
    machine.pass_time(2.0)
    assert watch.num_free() == pytest.approx(2)
    assert machine.slept == []


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_cores_are_watched_where_nothing_is_known_of_now(machine: Machine, seconds: float) -> None:
    watch = CoreWatch(machine.cgroup)
    machine.pass_time(seconds)
    machine.busy_cores = 3
    assert watch.num_free() == pytest.approx(1)
    assert machine.slept == [0.25]


def test_neighbours_in_a_container_share_its_limit(machine: Machine) -> None:
    (machine.cgroup / "cpu.max").write_text("200000 100000")
    watch = CoreWatch(machine.cgroup)
    machine.busy_cores, machine.own_cores = 1, 1.0
    machine.pass_time(1.0)
    assert watch.num_free() == pytest.approx(1)


def test_this_machine_can_be_watched() -> None:
    assert 0 <= CoreWatch().num_free() <= CORES + 0.5
