"""Which of several studies a worker takes its next trial of: fair, or in order, and why."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdtune.worker.study_choice import Load, order_of_service

loads = st.lists(st.builds(Load, st.integers(0, 50), st.integers(0, 8)), max_size=8)


def share(load: Load) -> Fraction:
    """Return what is left for each worker, with the one that chooses."""
    return Fraction(int(load.left), load.workers + 1)


@given(loads, st.booleans())
def test_only_studies_with_a_waiting_trial_are_served_and_each_once(
    studies: list[Load], in_order: bool
) -> None:
    order = order_of_service(studies, in_order=in_order)
    assert sorted(order) == [index for index, load in enumerate(studies) if load.left]
    assert order == order_of_service(list(studies), in_order=in_order)


@given(loads)
def test_nobody_has_more_left_for_each_worker_than_who_is_served_first(
    studies: list[Load],
) -> None:
    order = order_of_service(studies)
    for first, second in pairwise(order):
        assert share(studies[first]) >= share(studies[second])
        if share(studies[first]) == share(studies[second]):
            assert first < second


@given(loads)
def test_in_order_is_the_order_whoever_works_where(studies: list[Load]) -> None:
    order = order_of_service(studies, in_order=True)
    assert order == sorted(order)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40)), min_size=1, max_size=6),
    st.integers(1, 12),
    st.booleans(),
)
def test_workers_are_idle_only_where_no_trial_waits_anywhere_and_every_study_ends(
    studies: list[tuple[int, int]], num_workers: int, in_order: bool
) -> None:
    """Simulate it: trials of equal epochs, and workers that end them one after the other."""
    waiting = [trials for trials, _ in studies]
    held = [0] * len(studies)
    ends: list[tuple[int, int]] = []
    now = 0
    while sum(waiting) or ends:
        while len(ends) < num_workers and sum(waiting):
            order = order_of_service(
                [Load(waiting[i] * studies[i][1], held[i]) for i in range(len(studies))],
                in_order=in_order,
            )
            waiting[order[0]] -= 1
            held[order[0]] += 1
            ends.append((now + studies[order[0]][1], order[0]))
        assert len(ends) == num_workers or not sum(waiting)
        ends.sort()
        now, ended = ends.pop(0)
        held[ended] -= 1
    work = sum(trials * epochs for trials, epochs in studies)
    longest = max(epochs for _, epochs in studies)
    # No barrier: what any list of trials without gaps guarantees (Graham 1966).
    assert now <= work / num_workers + longest


@pytest.mark.parametrize(
    ("num_workers", "expected"), [(4, [2, 1, 1]), (8, [4, 2, 2]), (1, [1, 0, 0])]
)
def test_the_workers_are_dealt_out_as_the_work_is(num_workers: int, expected: list[int]) -> None:
    workers = [0, 0, 0]
    for _ in range(num_workers):
        order = order_of_service([Load(200, workers[0]), *(Load(100, w) for w in workers[1:])])
        workers[order[0]] += 1
    assert workers == expected
