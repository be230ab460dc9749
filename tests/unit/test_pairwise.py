"""The choice of combinations that `make test` tries leaves out no pair."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from pairwise import pairwise

axes = st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True),
    min_size=1,
)


@given(st.dictionaries(st.sampled_from(["first", "second", "third"]), axes))
def test_every_pair_of_values_is_there(tests: dict[str, dict[str, list[int]]]) -> None:
    chosen = pairwise(tests)
    wanted, found = set(), set()
    for test, of_test in tests.items():
        full = set(itertools.product(*of_test.values()))
        assert chosen[test] <= full
        for rows, pairs in ((full, wanted), (chosen[test], found)):
            for row in rows:
                values = [("test", test), *zip(of_test, row, strict=True)]
                pairs.update(frozenset(pair) for pair in itertools.combinations(values, 2))
    assert found == wanted
    assert chosen == pairwise(tests)


def test_three_axes_need_far_less_than_their_product() -> None:
    full = {"test": {"a": range(5), "b": range(5), "c": range(5)}}
    assert 25 <= len(pairwise(full)["test"]) <= 40


def test_tests_share_the_pairs_of_their_axes() -> None:
    """Each test meets each value, each two values meet in one test: 12, and not 24 of 36."""
    chosen = pairwise({name: {"a": range(4), "b": range(3)} for name in "xyz"})
    assert sum(map(len, chosen.values())) == 12
