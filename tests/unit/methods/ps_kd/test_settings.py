"""The settings of PS-KD: the batches that it needs, and what they cost."""

from __future__ import annotations

from skdtune.describe.config import MethodConfig
from skdtune.methods.ps_kd.settings import PsKdConfig


def test_its_batches_and_what_an_image_of_an_epoch_costs() -> None:
    method = MethodConfig(label=PsKdConfig())
    assert (method.batch_plan, method.images_per_anchor) == ("indexed", 1)


def test_a_weight_of_zero_needs_none_of_them() -> None:
    method = MethodConfig(label=PsKdConfig(weight=0.0))
    assert (method.batch_plan, method.images_per_anchor) == ("plain", 1)
