"""BAKE in training: what the batch makes together teaches, and learns nothing."""

from __future__ import annotations

from method_training import Start, outputs_after, require_detached_teacher
from network_cases import FIRST


def test_what_the_ensemble_teaches_is_detached(start_training: Start) -> None:
    training = start_training("bake", FIRST)
    training.steps(range(1))
    (main_BK,) = outputs_after(training, "bake")
    require_detached_teacher(main_BK)
