"""Which workers ``launch`` starts, and what each of them gets to see."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from skdtune.engines.local_slots import list_gpus, plan_slots
from skdtune.errors import DeviceError

CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def no_thread_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an ``nvidia-smi`` that shows two GPUs in front of all other programs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("no_gpu")
def test_without_gpus_every_core_gets_a_worker_with_one_thread() -> None:
    slots = plan_slots(None, None)
    assert [slot.device for slot in slots] == ["cpu"] * CORES
    assert {slot.environment["OMP_NUM_THREADS"] for slot in slots} == {"1"}


@pytest.mark.usefixtures("no_gpu")
def test_a_single_cpu_worker_has_one_thread_too_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (slot,) = plan_slots("none", 1)
    assert slot.environment["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    (slot,) = plan_slots("none", 1)
    assert slot.environment["OMP_NUM_THREADS"] == "6"


@pytest.mark.usefixtures("two_gpus")
def test_gpu_workers_share_the_cores() -> None:
    slots = plan_slots("all", None)
    assert [slot.environment["OMP_NUM_THREADS"] for slot in slots] == [str(max(1, CORES // 2))] * 2


@pytest.mark.usefixtures("no_gpu")
def test_all_gpus_is_refused_where_there_is_none() -> None:
    with pytest.raises(DeviceError, match="--gpus none"):
        plan_slots("all", None)


@pytest.mark.usefixtures("two_gpus")
def test_every_gpu_gets_one_worker_that_sees_it_alone() -> None:
    slots = plan_slots(None, None)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1"]
    assert {slot.device for slot in slots} == {"cuda:0"}
    # CUDA must count them as nvidia-smi does.
    assert {slot.environment["CUDA_DEVICE_ORDER"] for slot in slots} == {"PCI_BUS_ID"}


@pytest.mark.usefixtures("two_gpus")
def test_several_workers_share_a_gpu() -> None:
    slots = plan_slots("1", None, workers_per_gpu=3)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["1", "1", "1"]


@pytest.mark.usefixtures("two_gpus")
def test_a_number_of_workers_is_dealt_to_the_gpus_in_turn() -> None:
    slots = plan_slots("all", 3)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1", "0"]


@pytest.mark.usefixtures("two_gpus")
def test_cpu_workers_are_shown_no_gpu() -> None:
    slots = plan_slots("none", 2)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["", ""]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("wanted", ["2", "0,7", "first", ","])
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(wanted: str) -> None:
    with pytest.raises(DeviceError, match="shows GPUs 0, 1"):
        plan_slots(wanted, None)


@pytest.mark.usefixtures("two_gpus")
def test_the_variable_of_cuda_limits_what_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert list_gpus() == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert list_gpus() == []


@pytest.mark.usefixtures("no_gpu")
def test_cpu_workers_keep_their_memory_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    (slot,) = plan_slots("none", 1)
    assert "glibc.malloc.hugetlb=1" in slot.environment["GLIBC_TUNABLES"]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    (slot,) = plan_slots("none", 1)
    assert slot.environment["GLIBC_TUNABLES"] == "glibc.malloc.check=3"
