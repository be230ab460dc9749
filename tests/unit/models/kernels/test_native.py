"""The C part is built once, by whoever needs it first, and nothing depends on it."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from skdtune.models.kernels.library import ensure_library, native_folder
from skdtune.models.kernels.native import Kernels, forget_kernels, kernels_for, load_kernels


@pytest.fixture
def good(kernels: Kernels) -> Path:
    """Return the library that all tests share."""
    folder = native_folder()
    assert folder is not None
    library = ensure_library(folder)
    assert library is not None
    return library.path


@pytest.fixture
def built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name an empty folder for the library, and forget the one that was loaded."""
    monkeypatch.setenv("SKDTUNE_NATIVE", str(tmp_path / "native"))
    forget_kernels()
    return tmp_path / "native"


def compile_by(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a script compile; what it shall write is $2."""
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n{script}\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))


@pytest.fixture(autouse=True)
def load_anew_afterwards() -> Iterator[None]:
    yield
    forget_kernels()


def test_it_is_built_once_in_the_cache_of_the_home(
    good: Path, skdtune_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_by(f"echo called >> {tmp_path}/calls; cp {good} $2", tmp_path, monkeypatch)
    monkeypatch.delenv("SKDTUNE_NATIVE")
    for _ in range(2):
        forget_kernels()
        assert load_kernels() is not None
    assert (tmp_path / "calls").read_text() == "called\n"
    assert len(list((skdtune_home / "cache" / "native").glob("*.so"))) == 1


@pytest.mark.parametrize("next_time", ["the same", "a good one"])
def test_a_library_without_our_functions_is_built_anew_once(
    good: Path,
    built_in: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    next_time: str,
) -> None:
    empty, calls = tmp_path / "empty.so", tmp_path / "calls"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(empty)]
    subprocess.run(command, input=b"", check=True)
    second = empty if next_time == "the same" else good
    script = f"if [ -e {calls} ]; then cp {second} $2; else cp {empty} $2; fi"
    compile_by(f"{script}; echo called >> {calls}", tmp_path, monkeypatch)
    loaded = load_kernels()
    assert calls.read_text() == "called\ncalled\n"
    assert "is of no use" in caplog.text
    assert (loaded is None) == (next_time == "the same")
    assert ("cannot be built, torch computes instead" in caplog.text) == (loaded is None)


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
    compile_by(script, tmp_path, monkeypatch)
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
    forget_kernels()
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
