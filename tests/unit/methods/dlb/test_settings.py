"""The settings of DLB: the batches that it needs, and what they cost."""

from __future__ import annotations

from skdtune.describe.config import MethodConfig
from skdtune.methods.dlb.settings import DlbConfig


def test_its_batches_and_what_an_image_of_an_epoch_costs() -> None:
    method = MethodConfig(dlb=DlbConfig())
    assert (method.batch_plan, method.images_per_anchor) == ("two_views", 2)


def test_a_weight_of_zero_needs_none_of_them() -> None:
    method = MethodConfig(dlb=DlbConfig(weight=0.0))
    assert (method.batch_plan, method.images_per_anchor) == ("plain", 1)
