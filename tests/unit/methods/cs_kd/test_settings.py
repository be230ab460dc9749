"""The settings of CS-KD: the batches that it needs, and what they cost."""

from __future__ import annotations

from skdtune.describe.config import MethodConfig
from skdtune.methods.cs_kd.settings import CsKdConfig


def test_its_batches_and_what_an_image_of_an_epoch_costs() -> None:
    method = MethodConfig(cs_kd=CsKdConfig())
    assert (method.batch_plan, method.images_per_anchor) == ("class_pairs", 2)


def test_a_weight_of_zero_needs_none_of_them() -> None:
    method = MethodConfig(cs_kd=CsKdConfig(weight=0.0))
    assert (method.batch_plan, method.images_per_anchor) == ("plain", 1)
