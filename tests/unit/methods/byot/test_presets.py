"""The presets of BYOT: ranges after the published settings, and those as trial 0."""

from __future__ import annotations

import pytest
from preset_cases import BASELINE, DATASETS, load, method_of_trial_0, searched_by

#: What is searched beside the recipe.
SEARCHED: dict[str, str] = {
    "byot.weight": "0.05 to 0.9",
    "byot.temperature": "1 to 10, log",
    "byot.match_features": "True | False",
    "byot.feature_weight": "1e-08 to 0.0001, log",
}
#: What is searched only with a certain choice of something else.
CONDITIONAL = {"byot.feature_weight": "byot.match_features"}
#: The published settings, in full: what is not searched counts as well.
PUBLISHED = {
    "byot": {
        "weight": 0.1,
        "temperature": 3.0,
        "stages": None,
        "aux_ce_weight": 1.0,
        "match_features": True,
        "feature_weight": 1e-06,
    }
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_preset_searches_the_knobs_in_their_ranges(dataset: str) -> None:
    assert searched_by(load(f"{dataset}-byot")) == (SEARCHED, CONDITIONAL)


@pytest.mark.parametrize("dataset", DATASETS)
def test_trial_0_is_the_published_setting(dataset: str) -> None:
    assert method_of_trial_0(load(f"{dataset}-byot")) == BASELINE | PUBLISHED
