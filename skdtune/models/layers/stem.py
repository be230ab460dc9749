"""What a convolutional network begins with: as published for ImageNet, or for small images.

Shape legend: H height, W width of an image.
"""

from __future__ import annotations

from torch import nn

from skdtune.catalogues.models import Stem
from skdtune.models.layers.batch_norm_act import BatchNormAct2d


def convolution_stem(stem: Stem, in_channels: int, channels: int) -> nn.Sequential:
    """Build a convolution, batch normalisation and ReLU, and a max-pool where it is published.

    Args:
        stem: ``32px`` is a 3x3 convolution that keeps H and W, the custom for CIFAR (arXiv
            1512.03385, section 4.2); ``64px`` the same with stride 2, so that the stages see maps
            of the sizes that they see of 32 pixels; ``imagenet`` a 7x7 convolution with stride 2
            and a max-pool (the same paper, table 1), which leave H/4 and W/4.
        in_channels: Channels of the images.
        channels: Channels of the map.
    """
    if stem == "imagenet":
        return nn.Sequential(
            nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
            BatchNormAct2d(channels),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
    stride = 2 if stem == "64px" else 1
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
        BatchNormAct2d(channels),
    )
