from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skdtune.queue.checked_values import number, text, whole


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([1]))
def test_only_finite_numbers_are_numbers(value: Any) -> None:
    plain = number(value)
    assert plain is None or math.isfinite(plain)
    if isinstance(value, float) and math.isfinite(value):
        assert plain == value


def test_a_whole_number_is_cut_and_a_text_is_any_text() -> None:
    assert [whole(value) for value in (3, 3.9, "3", None)] == [3, 3, None, None]
    assert [text(value) for value in ("a", 3, None)] == ["a", "3", None]
