"""The networks of VGG with batch normalisation, built of torchvision's.

Source: *Very Deep Convolutional Networks for Large-Scale Image Recognition* (arXiv 1409.1556),
https://arxiv.org/abs/1409.1556, configurations D and E, with batch normalisation as in
torchvision. A stage ends before the max-pool that the next one begins with.

What differs from torchvision: batch normalisation and ReLU are one layer; a max-pool rounds the
size of an odd map up, so that images of any size have a last map. On small images (stems ``32px``
and ``64px``, which are the same here) the last map is averaged and classified by one linear layer,
the custom for CIFAR; ``imagenet`` has the published two hidden layers of 4,096, which hold nine
tenths of its parameters, and its tensors are torchvision's, in the order of its state dict.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import vgg16_bn, vgg19_bn

from skdtune.catalogues.models import Stem
from skdtune.models.backbone import StagedBackbone
from skdtune.models.layers.replacing import with_our_layers

_NETWORKS = {"vgg16_bn": vgg16_bn, "vgg19_bn": vgg19_bn}


def build(
    name: str,
    *,
    width: int | None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    stem: Stem = "32px",
) -> StagedBackbone:
    """Build a VGG network, see :class:`~skdtune.models.backbone.Builder`.

    Source: arXiv 1409.1556, table 1; initialised as by torchvision.
    """
    published: Any = _NETWORKS[name](num_classes=num_classes)
    features = published.features
    if in_channels != 3:
        features[0] = nn.Conv2d(in_channels, features[0].out_channels, 3, padding=1)
        nn.init.kaiming_normal_(features[0].weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(features[0].bias)
    stages: list[list[nn.Module]] = [[]]
    for part in with_our_layers(features).children():
        if isinstance(part, nn.MaxPool2d):
            part.ceil_mode = True
            stages.append([])
        stages[-1].append(part)
    # What follows the last max-pool is the head.
    (last_pool,) = stages.pop()
    *hidden, classifier = published.classifier
    if stem == "imagenet":
        pool = nn.Sequential(last_pool, published.avgpool, nn.Flatten(1), *hidden)
    else:
        pool = nn.Sequential(last_pool, nn.AdaptiveAvgPool2d(1))
        classifier = nn.Linear(features[-3].num_features, num_classes)
        nn.init.normal_(classifier.weight, 0, 0.01)
        nn.init.zeros_(classifier.bias)
    chains = [nn.Sequential(*stage) for stage in stages]
    return StagedBackbone(nn.Identity(), chains, pool, classifier)
