"""DRG in training: what it teaches, and who learns nothing from it."""

from __future__ import annotations

import pytest
from method_training import Start, networks_for, require_untaught


@pytest.mark.parametrize("network", networks_for("drg:stages=1+2"))
def test_the_auxiliary_classifiers_learn_nothing_from_what_they_teach(
    start_training: Start, network: str
) -> None:
    training = start_training("drg:stages=1+2", network)
    require_untaught(training, "drg", training.terms["drg"])
