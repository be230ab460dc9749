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
from torchvision.models.vgg import VGG, cfgs, make_layers

from skdtune.catalogues.models import Stem
from skdtune.models.backbone import StagedBackbone
from skdtune.models.layers.replacing import with_our_layers

_CONFIGURATIONS = {"vgg16_bn": "D", "vgg19_bn": "E"}


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
    features: Any = make_layers(cfgs[_CONFIGURATIONS[name]], batch_norm=True)
    channels = features[-3].num_features
    if in_channels != 3:
        features[0] = nn.Conv2d(in_channels, features[0].out_channels, 3, padding=1)
    if stem == "imagenet":
        head: Any = VGG(features, num_classes, init_weights=False)
        *hidden, classifier = head.classifier
        inner = [head.avgpool, nn.Flatten(1), *hidden]
    else:
        classifier, inner = nn.Linear(channels, num_classes), [nn.AdaptiveAvgPool2d(1)]
    stages: list[list[nn.Module]] = [[]]
    for part in with_our_layers(features).children():
        if isinstance(part, nn.MaxPool2d):
            part.ceil_mode = True
            stages.append([])
        stages[-1].append(part)
    # What follows the last max-pool is the head.
    pool = nn.Sequential(*stages.pop(), *inner)
    chains = [nn.Sequential(*stage) for stage in stages]
    network = StagedBackbone(nn.Identity(), chains, pool, classifier)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network
