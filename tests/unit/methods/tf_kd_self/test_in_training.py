"""TF-KD self in training: the frozen network learns nothing."""

from __future__ import annotations

from method_training import Start, outputs_after, require_detached_teacher
from network_cases import FIRST


def test_what_the_frozen_network_teaches_is_detached(start_training: Start) -> None:
    training = start_training("tf_kd_self", FIRST)
    training.steps(range(1))
    (main_BK,) = outputs_after(training, "tf_kd_self")
    require_detached_teacher(main_BK)
