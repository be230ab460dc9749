from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from skdtune.data.splits import limit_per_class, stratified_split
from skdtune.errors import DataError

seeds = st.integers(0, 2**63 - 1)


@st.composite
def labels(draw: st.DrawFn) -> NDArray[np.int64]:
    sizes = draw(st.lists(st.integers(2, 40), min_size=1, max_size=6))
    ordered = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(ordered)


@settings(deadline=None, max_examples=80)
@given(labels(), st.floats(0.001, 0.999), seeds)
def test_a_split_is_disjoint_covering_sorted_and_stratified(
    labels_N: NDArray[np.int64], fraction: float, seed: int
) -> None:
    train_N, val_N = stratified_split(labels_N, fraction, seed)
    both = np.concatenate([train_N, val_N])
    np.testing.assert_array_equal(np.sort(both), np.arange(len(labels_N)))
    for part_N in (train_N, val_N):
        assert (np.diff(part_N) > 0).all()
        assert set(labels_N[part_N]) == set(labels_N)
    for label in set(labels_N):
        size = (labels_N == label).sum()
        assert abs((labels_N[val_N] == label).sum() - fraction * size) <= 1


@settings(deadline=None, max_examples=30)
@given(labels(), seeds)
def test_a_split_follows_from_its_seed(labels_N: NDArray[np.int64], seed: int) -> None:
    first = stratified_split(labels_N, 0.3, seed)
    for one, other in zip(first, stratified_split(labels_N, 0.3, seed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_seed_makes_another_split() -> None:
    labels_N = np.arange(100) % 2
    first, second = (stratified_split(labels_N, 0.5, seed)[1] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_the_split_is_the_same_on_every_machine() -> None:
    _, val_N = stratified_split(np.arange(40) % 4, 0.2, 7)
    assert val_N.tolist() == [9, 15, 18, 24, 26, 33, 36, 39]
    assert limit_per_class(np.arange(12) % 3, 2, 7).tolist() == [0, 4, 5, 6, 7, 8]


def test_a_class_with_one_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"class 5 has 1 training image"):
        stratified_split(np.array([1, 1, 5, 2, 2]), 0.5, 0)


@settings(deadline=None, max_examples=60)
@given(labels(), st.integers(1, 50), seeds)
def test_a_limit_keeps_so_many_of_each_class(
    labels_N: NDArray[np.int64], limit: int, seed: int
) -> None:
    kept_N = limit_per_class(labels_N, limit, seed)
    assert (np.diff(kept_N) > 0).all()
    for label in set(labels_N):
        assert (labels_N[kept_N] == label).sum() == min(limit, (labels_N == label).sum())
    assert set(kept_N) <= set(limit_per_class(labels_N, limit + 1, seed))


def test_no_limit_keeps_all() -> None:
    assert limit_per_class(np.array([0, 1, 1]), None, 0).tolist() == [0, 1, 2]


def test_what_is_kept_does_not_decide_what_validates() -> None:
    labels_N = np.zeros(1000, dtype=np.int64)
    kept_N = limit_per_class(labels_N, 500, 3)
    _, val_N = stratified_split(labels_N, 0.5, 3)
    assert 200 < len(set(kept_N) & set(val_N)) < 300
