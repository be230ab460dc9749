"""The presets of DSR: the ranges that follow from the published settings, and those as trial 0."""

from __future__ import annotations

import pytest
from preset_cases import BASELINE, DATASETS, load, method_of_trial_0, searched_by

#: What is searched beside the recipe.
SEARCHED: dict[str, str] = {
    "dsr.weight": "0.05 to 5, log",
    "dsr.temperature": "1 to 10, log",
    "dsr.pairing": "row | batch_mean",
}
#: The published settings, in full: what is not searched counts as well.
PUBLISHED = {"dsr": {"weight": 1.0, "temperature": 4.0, "pairing": "row"}}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_preset_searches_the_knobs_in_their_ranges(dataset: str) -> None:
    assert searched_by(load(f"{dataset}-dsr")) == (SEARCHED, {})


@pytest.mark.parametrize("dataset", DATASETS)
def test_trial_0_is_the_published_setting(dataset: str) -> None:
    assert method_of_trial_0(load(f"{dataset}-dsr")) == BASELINE | PUBLISHED
