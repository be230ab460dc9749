"""The presets of FRSKD: ranges after the published settings, and those as trial 0."""

from __future__ import annotations

import pytest
from preset_cases import BASELINE, DATASETS, load, method_of_trial_0, searched_by

#: What is searched beside the recipe.
SEARCHED: dict[str, str] = {
    "frskd.weight": "0.5 to 5, log",
    "frskd.temperature": "2 to 8, log",
    "frskd.match_attention": "True | False",
    "frskd.attention_weight": "10 to 500, log",
    "frskd.width": "1 | 2",
    "frskd.depth": "1 | 2",
}
#: What is searched only with a certain choice of something else.
CONDITIONAL = {"frskd.attention_weight": "frskd.match_attention"}
#: The published settings, in full: what is not searched counts as well.
PUBLISHED = {
    "frskd": {
        "weight": 2.0,
        "temperature": 4.0,
        "match_attention": True,
        "attention_weight": 100.0,
        "aux_ce_weight": 1.0,
        "width": 2,
        "depth": 2,
    }
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_preset_searches_the_knobs_in_their_ranges(dataset: str) -> None:
    assert searched_by(load(f"{dataset}-frskd")) == (SEARCHED, CONDITIONAL)


@pytest.mark.parametrize("dataset", DATASETS)
def test_trial_0_is_the_published_setting(dataset: str) -> None:
    assert method_of_trial_0(load(f"{dataset}-frskd")) == BASELINE | PUBLISHED
