"""The C part is built once, by whoever needs it first, and nothing depends on it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from skdtune.models.kernels.native import Kernels, kernels_for, load_kernels


@pytest.fixture
def built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name an empty folder for the library, and forget the one that was loaded."""
    monkeypatch.setenv("SKDTUNE_NATIVE", str(tmp_path / "native"))
    load_kernels.cache_clear()
    return tmp_path / "native"


@pytest.fixture(autouse=True)
def load_anew_afterwards() -> Iterator[None]:
    yield
    load_kernels.cache_clear()


def test_it_is_built_once(kernels: Kernels, built_in: Path) -> None:
    assert load_kernels() is not None
    (library,) = built_in.iterdir()
    before = library.stat().st_mtime_ns
    load_kernels.cache_clear()
    assert load_kernels() is not None
    assert [path.stat().st_mtime_ns for path in built_in.iterdir()] == [before]


def test_processes_that_build_at_once_end_with_one_library(
    kernels: Kernels, built_in: Path
) -> None:
    code = "from skdtune.models.kernels.native import load_kernels; assert load_kernels()"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert len(list(built_in.iterdir())) == 1


def test_by_default_it_lies_in_the_cache_of_the_home(
    kernels: Kernels, skdtune_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SKDTUNE_NATIVE")
    load_kernels.cache_clear()
    assert load_kernels() is not None
    assert len(list((skdtune_home / "cache" / "native").glob("*.so"))) == 1


def test_without_a_compiler_torch_computes(
    built_in: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(built_in))
    monkeypatch.delenv("CC", raising=False)
    with caplog.at_level(logging.INFO):
        assert load_kernels() is None
    assert "no C compiler" in caplog.text
    assert kernels_for(torch.rand(2, 16, 2, 2)) is None


@pytest.mark.parametrize("script", ["echo broken >&2; exit 1", "exit 0"])
def test_a_broken_compiler_is_said_and_torch_computes(
    built_in: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    script: str,
) -> None:
    compiler = tmp_path / "brokencc"
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\n{script}\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert load_kernels() is None
    assert "cannot be built" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(
    built_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built_in.mkdir()
    built_in.chmod(0o500)
    assert load_kernels() is None
    assert "cannot be built" in caplog.text


def test_a_file_in_the_way_is_said(
    kernels: Kernels, built_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built_in.write_text("in the way")
    load_kernels.cache_clear()
    assert load_kernels() is None
    assert "cannot be built" in caplog.text


@pytest.mark.usefixtures("torch_alone")
def test_it_can_be_switched_off() -> None:
    assert load_kernels() is None


def test_what_torch_does_well_is_left_to_torch(kernels: Kernels) -> None:
    assert kernels_for(torch.rand(2, 16, 3, 3)) is None, "channels first"
    last = torch.rand(2, 16, 3, 3).contiguous(memory_format=torch.channels_last)
    assert kernels_for(last) is kernels
    assert kernels_for(last.double()) is None
    assert kernels_for(last.half()) is None
    assert kernels_for(last.to("meta")) is None
