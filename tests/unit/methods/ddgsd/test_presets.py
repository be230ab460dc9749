"""The presets of DDGSD: ranges after the published settings, and those as trial 0."""

from __future__ import annotations

import pytest
from preset_cases import BASELINE, DATASETS, load, method_of_trial_0, searched_by

#: What is searched beside the recipe.
SEARCHED: dict[str, str] = {
    "ddgsd.weight": "0.1 to 5, log",
    "ddgsd.temperature": "1 to 10, log",
    "ddgsd.match_features": "True | False",
    "ddgsd.feature_weight": "1e-05 to 1, log",
}
#: What is searched only with a certain choice of something else.
CONDITIONAL = {"ddgsd.feature_weight": "ddgsd.match_features"}
#: The published settings, in full: what is not searched counts as well.
PUBLISHED = {
    "ddgsd": {
        "weight": 1.0,
        "temperature": 4.0,
        "match_features": True,
        "feature_weight": 0.0005,
        "discrepancy": "scalar",
    }
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_preset_searches_the_knobs_in_their_ranges(dataset: str) -> None:
    assert searched_by(load(f"{dataset}-ddgsd")) == (SEARCHED, CONDITIONAL)


@pytest.mark.parametrize("dataset", DATASETS)
def test_trial_0_is_the_published_setting(dataset: str) -> None:
    assert method_of_trial_0(load(f"{dataset}-ddgsd")) == BASELINE | PUBLISHED
