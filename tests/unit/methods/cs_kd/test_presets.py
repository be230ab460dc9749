"""The presets of CS-KD: ranges after the published settings, and those as trial 0."""

from __future__ import annotations

import pytest
from preset_cases import BASELINE, DATASETS, load, method_of_trial_0, searched_by

#: What is searched beside the recipe.
SEARCHED: dict[str, str] = {"cs_kd.weight": "0.1 to 10, log", "cs_kd.temperature": "1 to 10, log"}
#: The published settings, in full: what is not searched counts as well.
PUBLISHED = {"cs_kd": {"weight": 1.0, "temperature": 4.0}}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_preset_searches_the_knobs_in_their_ranges(dataset: str) -> None:
    assert searched_by(load(f"{dataset}-cs-kd")) == (SEARCHED, {})


@pytest.mark.parametrize("dataset", DATASETS)
def test_trial_0_is_the_published_setting(dataset: str) -> None:
    assert method_of_trial_0(load(f"{dataset}-cs-kd")) == BASELINE | PUBLISHED
