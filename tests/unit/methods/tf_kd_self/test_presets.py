"""The presets of TF-KD self: ranges after the published settings, and those as trial 0."""

from __future__ import annotations

import pytest
from preset_cases import BASELINE, DATASETS, load, method_of_trial_0, searched_by

#: What is searched beside the recipe.
SEARCHED: dict[str, str] = {
    "tf_kd_self.weight": "0.1 to 0.99",
    "tf_kd_self.temperature": "1 to 20, log",
}
#: The published settings, in full: what is not searched counts as well.
PUBLISHED = {
    "tf_kd_self": {
        "teacher": "/teacher.safetensors",
        "teacher_sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "weight": 0.95,
        "temperature": 6.0,
        "multiplier": None,
    }
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_preset_searches_the_knobs_in_their_ranges(dataset: str) -> None:
    assert searched_by(load(f"{dataset}-tfkd-self")) == (SEARCHED, {})


@pytest.mark.parametrize("dataset", DATASETS)
def test_trial_0_is_the_published_setting(dataset: str) -> None:
    assert method_of_trial_0(load(f"{dataset}-tfkd-self")) == BASELINE | PUBLISHED
