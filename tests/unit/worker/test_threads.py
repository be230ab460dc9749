"""A trial gets the threads that pay for themselves, and its worker puts everything back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from skdtune.cores import CoreWatch
from skdtune.errors import InputError
from skdtune.worker import threads as threads_module
from skdtune.worker.threads import Threads, worthwhile_threads

CPU = torch.device("cpu")
LARGE = 1e12


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Be a machine of some cores, of which some are free."""

    def be(num_cores: int, num_free: float) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(threads_module, "num_cores", lambda: num_cores)
        monkeypatch.setattr(CoreWatch, "num_free", lambda self: num_free)

    return be


@pytest.mark.parametrize(
    ("millions", "gain", "expected"),
    # What two threads brought on an idle machine of two cores: docs/performance.md.
    [(2.5, 1.10, 1), (7.4, 1.17, 1), (20, 1.39, 1), (40, 1.44, 1), (119, 1.69, 2), (160, 1.74, 2)],
)
def test_two_threads_where_the_second_brings_half_a_core(
    millions: float, gain: float, expected: int
) -> None:
    assert (gain >= 1.5) == (expected == 2)
    assert worthwhile_threads(millions * 1e6, 2) == expected


def test_a_large_network_feeds_many_threads_and_a_small_one_never_does() -> None:
    assert worthwhile_threads(LARGE, 64) == 64
    assert 4 < worthwhile_threads(1e9, 64) < 32
    assert worthwhile_threads(1e6, 64) == worthwhile_threads(0.0, 64) == 1


@pytest.mark.parametrize(
    ("num_free", "expected", "said"),
    [
        (4.0, 4, "4 threads"),
        (3.85, 4, "4 threads"),
        (2.9, 3, "3 threads (the other cores are busy)"),
        (1.1, 1, "1 thread (the other cores are busy)"),
        (0.0, 1, "1 thread (the other cores are busy)"),
    ],
)
def test_busy_neighbours_keep_their_cores(
    machine: Callable[..., None], num_free: float, expected: int, said: str
) -> None:
    machine(4, num_free)
    with Threads(CPU) as threads:
        threads.take(lambda: LARGE)
        assert torch.get_num_threads() == expected
        assert str(threads) == said
        assert not threads.take(lambda: LARGE)
        assert threads.take(lambda: 0.0) == (expected > 1)
        assert str(threads) == "1 thread (more would wait for each other)"


def test_torch_has_its_own_number_again_afterwards(machine: Callable[..., None]) -> None:
    machine(3, 3.0)
    torch.set_num_threads(2)

    def train() -> None:
        with Threads(CPU) as threads:
            threads.take(lambda: LARGE)
            assert torch.get_num_threads() == 3
            raise RuntimeError("a cable came loose")

    with pytest.raises(RuntimeError, match="a cable"):
        train()
    assert torch.get_num_threads() == 2


def test_what_a_person_says_counts(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(2, 0.0)

    def never() -> float:
        raise AssertionError("the work was asked for")

    with Threads(CPU, 3) as threads:
        threads.take(never)
        assert str(threads) == "3 threads"
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with Threads(CPU) as threads:
        threads.take(never)
        assert str(threads) == "2 threads"
    monkeypatch.delenv("OMP_NUM_THREADS")
    with Threads(torch.device("cuda:0")) as threads:
        threads.take(never, 7)
        assert str(threads) == "2 threads"
    with pytest.raises(InputError, match="threads: expected at least 1, received 0"):
        Threads(CPU, 0)


@pytest.mark.parametrize(
    ("asked", "began_with", "expected"),
    [
        (None, 2, 2),
        (None, 1, 1),
        # No more than there are cores, or than was asked for.
        (None, 9, 4),
        (1, 2, 1),
        (4, 2, 2),
        # Whatever somebody wrote there.
        (None, -3, 1),
        (None, 0, 3),
    ],
)
def test_a_trial_goes_on_as_it_began_where_it_can(
    machine: Callable[..., None], asked: int | None, began_with: int, expected: int
) -> None:
    machine(4, 3.0)
    with Threads(CPU, asked) as threads:
        threads.take(lambda: LARGE, began_with)
        assert torch.get_num_threads() == expected
        assert ("as the trial began" in str(threads)) == (expected == began_with)
