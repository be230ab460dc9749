from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from skdtune.models.kernels.native import Kernels, forget_kernels, load_kernels


@pytest.fixture(autouse=True)
def one_thread_one_seed() -> Iterator[None]:
    """Reproducible numbers; many small kernels on many threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def kernels() -> Kernels:
    """Return the C part; without a C compiler there is nothing to test."""
    forget_kernels()
    loaded = load_kernels()
    if loaded is None:
        pytest.skip("needs a C compiler")
    return loaded


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch compute everything."""
    monkeypatch.setenv("SKDTUNE_NATIVE", "0")
    forget_kernels()
    yield
    forget_kernels()
