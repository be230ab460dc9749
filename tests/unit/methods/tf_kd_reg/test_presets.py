"""The presets of TF-KD reg: ranges after the published settings, and those as trial 0."""

from __future__ import annotations

import pytest
from preset_cases import BASELINE, DATASETS, load, method_of_trial_0, searched_by

#: What is searched beside the recipe.
SEARCHED: dict[str, str] = {
    "tf_kd_reg.weight": "0.01 to 0.5, log",
    "tf_kd_reg.correct_prob": "0.9 to 0.999",
}
#: The published settings, in full: what is not searched counts as well.
PUBLISHED = {
    "tf_kd_reg": {"weight": 0.1, "correct_prob": 0.99, "temperature": 20.0, "multiplier": None}
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_preset_searches_the_knobs_in_their_ranges(dataset: str) -> None:
    assert searched_by(load(f"{dataset}-tfkd-reg")) == (SEARCHED, {})


@pytest.mark.parametrize("dataset", DATASETS)
def test_trial_0_is_the_published_setting(dataset: str) -> None:
    assert method_of_trial_0(load(f"{dataset}-tfkd-reg")) == BASELINE | PUBLISHED
