"""ShuffleNet V2, built of torchvision's, with a stem for small images.

Source: *ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design* (arXiv
1807.11164), https://arxiv.org/abs/1807.11164. The last stage
ends with the 1x1 convolution before the average.

On small images the first convolution has stride 1 (``32px``) or 2 (``64px``) and no max-pool
follows. ``imagenet`` is torchvision's, its tensors in the order of its state dict.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import shufflenet_v2_x1_0

from skdtune.catalogues.models import Stem
from skdtune.models.backbone import StagedBackbone
from skdtune.models.layers.replacing import with_our_layers


def build(
    name: str,
    *,
    width: int | None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    stem: Stem = "32px",
) -> StagedBackbone:
    """Build a ShuffleNet V2 of width 1, see :class:`~skdtune.models.backbone.Builder`.

    Source: arXiv 1807.11164, table 5; initialised as by torchvision.
    """
    published: Any = shufflenet_v2_x1_0(num_classes=num_classes)
    stride, channels = 1 if stem == "32px" else 2, published.conv1[0].out_channels
    if in_channels != 3:
        published.conv1[0] = nn.Conv2d(in_channels, channels, 3, 2, padding=1, bias=False)
    published.conv1[0].stride = (stride, stride)
    ours: Any = with_our_layers(published)
    first = nn.Sequential(*ours.conv1, *([ours.maxpool] if stem == "imagenet" else []))
    stages = [ours.stage2, ours.stage3, nn.Sequential(ours.stage4, ours.conv5)]
    return StagedBackbone(first, stages, nn.AdaptiveAvgPool2d(1), ours.fc)
