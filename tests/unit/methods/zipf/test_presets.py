"""The presets of Zipf's label smoothing: ranges after what is published, and that as trial 0."""

from __future__ import annotations

import pytest
from preset_cases import BASELINE, DATASETS, load, method_of_trial_0, searched_by

#: What is searched beside the recipe.
SEARCHED: dict[str, str] = {
    "zipf.weight": "0.01 to 2, log",
    "zipf.power": "0.5 to 2",
    "zipf.dense": "True | False",
    "zipf.upsample": "True | False",
}
#: What is searched only with a certain choice of something else.
CONDITIONAL = {"zipf.upsample": "zipf.dense"}
#: The published settings, in full: what is not searched counts as well.
PUBLISHED = {"zipf": {"weight": 0.1, "power": 1.0, "dense": True, "upsample": True}}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_preset_searches_the_knobs_in_their_ranges(dataset: str) -> None:
    assert searched_by(load(f"{dataset}-zipf")) == (SEARCHED, CONDITIONAL)


@pytest.mark.parametrize("dataset", DATASETS)
def test_trial_0_is_the_published_setting(dataset: str) -> None:
    assert method_of_trial_0(load(f"{dataset}-zipf")) == BASELINE | PUBLISHED
