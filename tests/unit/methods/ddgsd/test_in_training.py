"""DDGSD in training: two views teach each other, each detached where it does."""

from __future__ import annotations

from method_training import Start, outputs_after, require_detached_teacher
from network_cases import FIRST


def test_what_the_views_teach_is_detached(start_training: Start) -> None:
    training = start_training("ddgsd", FIRST)
    training.steps(range(1))
    (main_BK,) = outputs_after(training, "ddgsd")
    require_detached_teacher(main_BK)
