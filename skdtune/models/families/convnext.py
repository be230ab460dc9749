"""ConvNeXt, built of torchvision's, with a stem for small images.

Source: *A ConvNet for the 2020s* (arXiv 2201.03545), https://arxiv.org/abs/2201.03545. A stage
begins with the convolution that halves its maps.

Patches of the stem: a 3x3 convolution that keeps the size (``32px``), 2x2 pixels (``64px``), or
the published 4x4 (``imagenet``): torchvision's, its tensors in the order of its state dict.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import convnext_tiny

from skdtune.catalogues.models import Stem
from skdtune.models.backbone import StagedBackbone


def build(
    name: str,
    *,
    width: int | None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    stem: Stem = "32px",
) -> StagedBackbone:
    """Build a ConvNeXt-Tiny, see :class:`~skdtune.models.backbone.Builder`.

    Source: arXiv 2201.03545, section 3 and table 9; initialised as by torchvision, with its
    stochastic depth of 0.1.
    """
    published: Any = convnext_tiny(num_classes=num_classes)
    features = published.features
    if stem != "imagenet" or in_channels != 3:
        channels = features[0][0].out_channels
        kernel, stride, padding = {"32px": (3, 1, 1), "64px": (2, 2, 0), "imagenet": (4, 4, 0)}[
            stem
        ]
        features[0][0] = nn.Conv2d(in_channels, channels, kernel, stride, padding)
        nn.init.trunc_normal_(features[0][0].weight, std=0.02)
        nn.init.zeros_(features[0][0].bias)
    first, *rest = features
    stages = [rest[:1], rest[1:3], rest[3:5], rest[5:]]
    *hidden, classifier = published.classifier
    pool = nn.Sequential(published.avgpool, *hidden)
    return StagedBackbone(first, [nn.Sequential(*stage) for stage in stages], pool, classifier)
