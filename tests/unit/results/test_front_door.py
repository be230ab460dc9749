from __future__ import annotations

import inspect
from typing import Any

import pytest

import skdtune
import skdtune.results.tables
from skdtune.errors import StudyError
from skdtune.results import study_results


def test_the_room_is_called_like_the_function_whose_name_it_takes(ready_url: str) -> None:
    called: Any = skdtune.results
    parameters = inspect.signature(study_results.results).parameters
    assert inspect.signature(called).parameters == parameters
    with pytest.raises(StudyError, match="there is no study 'nobody'"):
        called("nobody", storage=ready_url)
