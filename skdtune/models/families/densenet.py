"""Densely connected networks, built of torchvision's, with a stem for small images.

Source: *Densely Connected Convolutional Networks* (arXiv 1608.06993), https://arxiv.org/abs/1608.06993.
A stage is a dense block with the transition before it. With the stem ``imagenet`` the tensors are
torchvision's, in the order of its state dict.

What differs from torchvision: batch normalisation and ReLU are one layer; a transition rounds the
size of an odd map up, so that images of any size have a last map.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import densenet121

from skdtune.catalogues.models import Stem
from skdtune.models.backbone import StagedBackbone
from skdtune.models.layers.replacing import with_our_layers
from skdtune.models.layers.stem import convolution_stem


def build(
    name: str,
    *,
    width: int | None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    stem: Stem = "32px",
) -> StagedBackbone:
    """Build a DenseNet-121, see :class:`~skdtune.models.backbone.Builder`.

    Source: arXiv 1608.06993, table 1; initialised as by torchvision.
    """
    published: Any = densenet121(num_classes=num_classes)
    first: Any = convolution_stem(stem, in_channels, published.features.conv0.out_channels)
    nn.init.kaiming_normal_(first[0].weight)
    parts: Any = with_our_layers(published.features)
    stages: list[list[nn.Module]] = [[]]
    for part_name, part in list(parts.named_children())[4:-1]:
        if part_name.startswith("transition"):
            part.pool = nn.AvgPool2d(2, 2, ceil_mode=True)
            stages.append([part])
        else:
            for layer in part.values():
                _rectify(layer, "norm1", "relu1")
                _rectify(layer, "norm2", "relu2")
            stages[-1].append(part)
    parts.norm5.relu = True
    stages[-1].append(parts.norm5)
    pool = nn.AdaptiveAvgPool2d(1)
    chains = [nn.Sequential(*stage) for stage in stages]
    return StagedBackbone(first, chains, pool, published.classifier)


def _rectify(layer: Any, norm: str, relu: str) -> None:
    """Let a normalisation of a dense layer, which ReLU follows, take that over."""
    getattr(layer, norm).relu = True
    setattr(layer, relu, nn.Identity())
