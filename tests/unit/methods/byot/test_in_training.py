"""BYOT in training: what the final classifier teaches, and what a choice switches off."""

from __future__ import annotations

import pytest
from method_training import Start, networks_for, require_untaught
from network_cases import FIRST, last_stage


@pytest.mark.parametrize("network", networks_for("byot"))
def test_the_final_classifier_learns_nothing_from_what_it_teaches(
    start_training: Start, network: str
) -> None:
    training = start_training("byot", network)
    require_untaught(training, "byot", training.network.classifier)


@pytest.mark.parametrize("network", networks_for("byot"))
def test_the_last_stage_learns_nothing_from_the_features_it_teaches(
    start_training: Start, network: str
) -> None:
    training = start_training("byot", network)
    require_untaught(training, "byot_features", last_stage(training.network))


def test_without_features_one_of_its_losses_is_zero(start_training: Start) -> None:
    losses = start_training("byot:stages=1+2:match_features=False", FIRST).losses(1)
    assert {name for name, loss in losses.items() if loss == 0} == {"byot_features"}
