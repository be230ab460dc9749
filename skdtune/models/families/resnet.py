"""Residual networks for small images, with named stages.

Source: *Deep Residual Learning for Image Recognition* (arXiv 1512.03385), https://arxiv.org/abs/1512.03385;
the blocks have the layers and the names of torchvision's, so the activation comes after the sum.

What differs from torchvision: batch normalisation, sum and ReLU are one layer
(``batch_norm_act.py``); the stem is one 3x3 convolution with stride 1 and no max-pool, as
usual for images of 32 pixels. ResNet-18/34/50/101 keep four stages (11,220,132 parameters for
ResNet-18 and 23,705,252 for ResNet-50 at 3 channels and 100 classes). ResNet-8/20 are the
three-stage networks of section 4.2 of the paper with projection shortcuts (its option B) instead
of zero padding.

Tensor shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from skdtune.models.backbone import StagedBackbone
from skdtune.models.layers.batch_norm_act import BatchNormAct2d
from skdtune.models.layers.convolution import Conv3x3


class BlockClass(Protocol):
    """A class of residual blocks; its outputs have ``expansion`` times the given channels."""

    expansion: int

    def __call__(
        self, in_channels: int, channels: int, stride: int, shortcut: nn.Module | None, /
    ) -> nn.Module:
        """Build one block."""
        ...


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (section 3.3 of the paper)."""

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, stride: int, shortcut: nn.Module | None, /
    ) -> None:
        """Build the block; without a shortcut its input itself is added."""
        super().__init__()
        self.conv1 = Conv3x3(in_channels, channels, stride)
        self.bn1 = BatchNormAct2d(channels)
        self.conv2 = Conv3x3(channels, channels, 1)
        self.bn2 = BatchNormAct2d(channels)
        self.downsample = shortcut

    def forward(self, feature_BCHW: Tensor) -> Tensor:
        """Return a map of ``channels`` channels, smaller by the stride."""
        shortcut_BCHW = feature_BCHW if self.downsample is None else self.downsample(feature_BCHW)
        inner_BCHW = self.bn1(self.conv1(feature_BCHW))
        output_BCHW: Tensor = self.bn2(self.conv2(inner_BCHW), shortcut_BCHW)
        return output_BCHW


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (section 4.1), the stride on the 3x3."""

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int, shortcut: nn.Module | None, /
    ) -> None:
        """Build the block; without a shortcut its input itself is added."""
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = BatchNormAct2d(channels)
        self.conv2 = Conv3x3(channels, channels, stride)
        self.bn2 = BatchNormAct2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = BatchNormAct2d(out_channels)
        self.downsample = shortcut

    def forward(self, feature_BCHW: Tensor) -> Tensor:
        """Return a map of ``4 * channels`` channels, smaller by the stride."""
        shortcut_BCHW = feature_BCHW if self.downsample is None else self.downsample(feature_BCHW)
        inner_BCHW = self.bn2(self.conv2(self.bn1(self.conv1(feature_BCHW))))
        output_BCHW: Tensor = self.bn3(self.conv3(inner_BCHW), shortcut_BCHW)
        return output_BCHW


# Others call them the same.
_NAMES_OF_TORCHVISION = (
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    *((rf"^layer{number}\.", f"stages.{number - 1}.") for number in range(1, 5)),
    (r"^fc\.", "classifier."),
)

# Class of the blocks, and how many of them each stage has.
_LAYOUTS: Mapping[str, tuple[BlockClass, tuple[int, ...]]] = {
    "resnet8": (BasicBlock, (1, 1, 1)),
    "resnet20": (BasicBlock, (3, 3, 3)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


def build(
    name: str,
    *,
    width: int | None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
) -> StagedBackbone:
    """Build a residual network, see :class:`~skdtune.models.backbone.Builder`.

    The first stage keeps the size of the image; every later one doubles the channels and halves
    height and width.

    Source: arXiv 1512.03385, table 1 (18 to 101 layers) and section 4.2 (8 and 20 layers), with
    the stem for small images described at the top of this file.

    Args:
        name: ``resnet`` and the number of layers.
        width: Channels of the stem and, before the expansion of the block, of the first stage.
        in_channels: Channels of the images.
        image_size: Height and width of the images, which may be any.
        num_classes: Number of logits.
    """
    assert width is not None
    block, num_blocks = _LAYOUTS[name]
    stem = nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False), BatchNormAct2d(width)
    )
    stages: list[nn.Module] = []
    channels = width
    for index, count in enumerate(num_blocks):
        stage_width = width * 2**index
        out_channels = stage_width * block.expansion
        stride = 1 if index == 0 else 2
        shortcut: nn.Module | None = None
        if stride != 1 or channels != out_channels:
            shortcut = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False),
                BatchNormAct2d(out_channels, relu=False),
            )
        blocks = [block(channels, stage_width, stride, shortcut)]
        blocks += [block(out_channels, stage_width, 1, None) for _ in range(1, count)]
        stages.append(nn.Sequential(*blocks))
        channels = out_channels
    pool, classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, num_classes)
    network = StagedBackbone(stem, stages, pool, classifier)
    network.names_elsewhere = _NAMES_OF_TORCHVISION
    # As torchvision: batch normalization starts at 1 and 0 and the linear layer at torch's
    # defaults, both without our doing.
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
