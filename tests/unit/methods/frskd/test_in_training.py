"""FRSKD in training: what its pyramid teaches, and what a choice switches off."""

from __future__ import annotations

import pytest
from method_training import Start, networks_for, require_untaught
from network_cases import FIRST


@pytest.mark.parametrize("network", networks_for("frskd"))
@pytest.mark.parametrize("loss", ["frskd", "frskd_attention"])
def test_the_pyramid_learns_nothing_from_what_it_teaches(
    start_training: Start, loss: str, network: str
) -> None:
    training = start_training("frskd", network)
    require_untaught(training, loss, training.terms["frskd"])


def test_without_attention_one_of_its_losses_is_zero(start_training: Start) -> None:
    losses = start_training("frskd:match_attention=False", FIRST).losses(1)
    assert {name for name, loss in losses.items() if loss == 0} == {"frskd_attention"}
