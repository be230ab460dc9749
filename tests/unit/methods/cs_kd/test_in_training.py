"""CS-KD in training: partners teach, and learn nothing."""

from __future__ import annotations

from method_training import Start, outputs_after
from network_cases import FIRST


def test_the_partner_is_detached(start_training: Start) -> None:
    main_BK, partner_BK = outputs_after(start_training("cs_kd", FIRST), "cs_kd")
    assert main_BK.grad is not None
    assert main_BK.grad.any()
    assert not partner_BK.requires_grad
