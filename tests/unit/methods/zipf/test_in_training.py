"""Zipf's label smoothing in training: the ranks learn nothing."""

from __future__ import annotations

from method_training import Start, outputs_after, require_detached_teacher
from network_cases import FIRST


def test_what_the_ranks_teach_is_detached(start_training: Start) -> None:
    training = start_training("zipf", FIRST)
    training.steps(range(1))
    (main_BK,) = outputs_after(training, "zipf")
    require_detached_teacher(main_BK)
