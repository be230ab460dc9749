"""MobileNets and EfficientNet: chains of inverted residual blocks, built of torchvision's.

Source: *MobileNetV2: Inverted Residuals and Linear Bottlenecks* (arXiv 1801.04381), *Searching for
MobileNetV3* (arXiv 1905.02244), *EfficientNet: Rethinking Model Scaling* (arXiv 1905.11946). A
stage is what computes at one resolution; the last one ends with the 1x1 convolution before the
average.

Small images are not made as small: the stem ``32px`` has stride 1 where the published network
halves its images for the first and the second time, the custom for CIFAR; ``64px`` for the second
time only. ``imagenet`` is torchvision's, its tensors in the order of its state dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torchvision.models import (
    efficientnet_b0,
    mobilenet_v2,
    mobilenet_v3_large,
    mobilenet_v3_small,
)

from skdtune.catalogues.models import Stem
from skdtune.models.backbone import StagedBackbone
from skdtune.models.layers.replacing import with_our_layers


@dataclass(frozen=True)
class _Chain:
    """A network of torchvision whose ``features`` are a stem and a chain of blocks."""

    build: Callable[..., Any]
    ends: tuple[int, ...]
    """Where each stage ends in them; the stem is the first one."""

    has_widths: bool = True
    """Its constructor takes ``width_mult``."""


_CHAINS: Mapping[str, _Chain] = {
    "mobilenet_v2": _Chain(mobilenet_v2, (2, 4, 7, 14, 19)),
    "mobilenet_v3_small": _Chain(mobilenet_v3_small, (2, 4, 9, 13)),
    "mobilenet_v3_large": _Chain(mobilenet_v3_large, (2, 4, 7, 13, 17)),
    "efficientnet_b0": _Chain(efficientnet_b0, (2, 3, 4, 6, 9), has_widths=False),
}
# Which of the convolutions that halve their maps are kept from it.
_KEPT_LARGE: Mapping[Stem, slice] = {
    "32px": slice(0, 2),
    "64px": slice(1, 2),
    "imagenet": slice(0, 0),
}


def build(
    name: str,
    *,
    width: int | None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    stem: Stem = "32px",
) -> StagedBackbone:
    """Build one of these networks, see :class:`~skdtune.models.backbone.Builder`.

    Source: arXiv 1801.04381, table 2; arXiv 1905.02244, tables 1 and 2; arXiv 1905.11946, table 1;
    initialised as by torchvision.

    Args:
        name: A name of the catalogue.
        width: Channels of the first stage; all others in proportion, in multiples of 8.
        in_channels: Channels of the images.
        image_size: Height and width of the images, which may be any.
        num_classes: Number of logits.
        stem: What it begins with.
    """
    chain = _CHAINS[name]
    widths = {"width_mult": (width or 16) / 16} if chain.has_widths else {}
    published: Any = chain.build(num_classes=num_classes, **widths)
    features = published.features
    first = features[0][0]
    if in_channels != first.in_channels:
        features[0][0] = nn.Conv2d(in_channels, first.out_channels, 3, 2, padding=1, bias=False)
        nn.init.kaiming_normal_(features[0][0].weight, mode="fan_out")
    halving = [m for m in features.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    for convolution in halving[_KEPT_LARGE[stem]]:
        convolution.stride = (1, 1)
    blocks = list(with_our_layers(features).children())
    starts = (1, *chain.ends[:-1])
    stages = [nn.Sequential(*blocks[i:j]) for i, j in zip(starts, chain.ends, strict=True)]
    *hidden, classifier = published.classifier
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *hidden)
    return StagedBackbone(blocks[0], stages, pool, classifier)
