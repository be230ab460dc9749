"""The settings of BAKE: the batches that it needs, and what they cost."""

from __future__ import annotations

from skdtune.describe.config import MethodConfig
from skdtune.methods.bake.settings import BakeConfig


def test_its_batches_and_what_an_image_of_an_epoch_costs() -> None:
    method = MethodConfig(bake=BakeConfig())
    assert (method.batch_plan, method.images_per_anchor) == ("groups", 4)


def test_a_weight_of_zero_needs_none_of_them() -> None:
    method = MethodConfig(bake=BakeConfig(weight=0.0))
    assert (method.batch_plan, method.images_per_anchor) == ("plain", 1)
