"""The presets on digits: a first look at the tool, in seconds."""

from __future__ import annotations

import pytest
from preset_cases import METHODS, load


@pytest.mark.parametrize("method", METHODS)
def test_digits_are_not_mirrored_and_take_seconds(method: str) -> None:
    spec = load(f"digits-{method}")
    assert not spec.data.flip
    assert spec.model.name == "resnet8"
    assert spec.budget.epochs == 12
    assert spec.num_trials >= 16


@pytest.mark.parametrize("method", METHODS)
def test_digits_are_learned_as_fast_as_with_the_recipe(method: str) -> None:
    spec = load(f"digits-{method}")
    params = spec.base_params()
    assert (params["optimizer.lr"], params["optimizer.weight_decay"]) == (0.1, 5e-4)
    assert spec.search["optimizer.lr"].describe() == "0.01 to 0.5, log"
    assert spec.search["optimizer.weight_decay"].describe() == "5e-05 to 0.002, log"
