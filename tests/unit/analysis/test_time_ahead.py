"""How long studies will take, before anything is trained."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdtune.analysis.time_ahead import TrialsAhead, describe_time_ahead, seconds_ahead

studies = st.lists(
    st.builds(TrialsAhead, st.integers(0, 20), st.integers(1, 1000).map(float)), max_size=5
)


@given(studies, st.integers(1, 16))
def test_the_time_lies_between_what_no_and_any_dealing_out_could_take(
    left: list[TrialsAhead], num_workers: int
) -> None:
    took_s = seconds_ahead(left, num_workers)
    total_s = sum(study.number * study.trial_s for study in left)
    longest_s = max((study.trial_s for study in left if study.number), default=0.0)
    least_s = max(total_s / num_workers, longest_s)
    assert least_s <= took_s + 1e-6
    # Graham's bound for the longest first.
    assert took_s <= (4 / 3) * least_s + longest_s
    assert math.isclose(seconds_ahead(left, 1), total_s)
    assert seconds_ahead(left, num_workers + 1) <= total_s + 1e-6


@pytest.mark.parametrize(("num_workers", "expected"), [(1, 50), (4, 20), (5, 10), (9, 10)])
def test_five_trials_on_four_workers_take_as_long_as_eight(
    num_workers: int, expected: float
) -> None:
    assert seconds_ahead([TrialsAhead(5, 10)], num_workers) == expected


def test_it_is_said_for_one_worker_and_for_those_that_are_asked_for() -> None:
    left = [TrialsAhead(10, 3600)]
    assert describe_time_ahead(left, 4, "as measured") == (
        "at most about 10 h 0 min with 1 worker, 3 h 0 min with 4 (as measured; less where trials "
        "are pruned)"
    )
    assert "with 1 worker (" in describe_time_ahead(left, 1, "as measured")
