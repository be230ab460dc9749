"""Residual networks for small images, with named stages.

Source: *Deep Residual Learning for Image Recognition* (arXiv 1512.03385), https://arxiv.org/abs/1512.03385;
the blocks have the layers and the names of torchvision's, so the activation comes after the sum.

What differs from torchvision: batch normalisation, sum and ReLU are one layer
(``batch_norm_act.py``); the stem is one 3x3 convolution with stride 1 and no max-pool, as
usual for images of 32 pixels. ResNet-18/34/50/101 keep four stages (11,220,132 parameters for
ResNet-18 and 23,705,252 for ResNet-50 at 3 channels and 100 classes). ResNet-8/20 are the
three-stage networks of section 4.2 of the paper with projection shortcuts (its option B) instead
of zero padding.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn

from skdtune.describe.config import ModelConfig
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


@dataclass(frozen=True)
class Layout:
    """What tells one backbone from another."""

    block: BlockClass
    """Class of the residual blocks."""

    num_blocks: tuple[int, ...]
    """Blocks of each stage; the length is the number of stages."""

    width: int
    """Default channels of the first stage, before the expansion of the block."""


#: Every backbone by the name it has in a study.
BACKBONES: Mapping[str, Layout] = MappingProxyType(
    {
        "resnet8": Layout(BasicBlock, (1, 1, 1), 16),
        "resnet20": Layout(BasicBlock, (3, 3, 3), 16),
        "resnet18": Layout(BasicBlock, (2, 2, 2, 2), 64),
        "resnet34": Layout(BasicBlock, (3, 4, 6, 3), 64),
        "resnet50": Layout(Bottleneck, (3, 4, 6, 3), 64),
        "resnet101": Layout(Bottleneck, (3, 4, 23, 3), 64),
    }
)


class Backbone(nn.Module):
    """A residual network: stem, stages, global average, one linear classifier.

    The first stage keeps the size of the image; every later one doubles the channels and halves
    height and width.
    """

    def __init__(self, layout: Layout, *, width: int, in_channels: int, num_classes: int) -> None:
        """Build the network with fresh weights drawn from torch's global generator.

        Args:
            layout: kind and number of blocks.
            width: channels of the stem and, before the expansion, of the first stage.
            in_channels: channels of the images.
            num_classes: K, the number of logits.
        """
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            BatchNormAct2d(width),
        )
        self.stages = nn.ModuleList()
        channels = width
        for index, num_blocks in enumerate(layout.num_blocks):
            stage_width = width * 2**index
            out_channels = stage_width * layout.block.expansion
            stride = 1 if index == 0 else 2
            shortcut: nn.Module | None = None
            if stride != 1 or channels != out_channels:
                shortcut = nn.Sequential(
                    nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False),
                    BatchNormAct2d(out_channels, relu=False),
                )
            blocks = [layout.block(channels, stage_width, stride, shortcut)]
            for _ in range(1, num_blocks):
                blocks.append(layout.block(out_channels, stage_width, 1, None))
            self.stages.append(nn.Sequential(*blocks))
            channels = out_channels
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        # As torchvision: batch normalization starts at 1 and 0 and the linear layer at torch's
        # defaults, both without our doing.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Classify images.

        Args:
            images_BCHW: images of any height and width.

        Returns:
            Logits of shape ``[B, K]``.
        """
        feature_BCHW: Tensor = self.stem(images_BCHW)
        for stage in self.stages:
            feature_BCHW = stage(feature_BCHW)
        logits_BK: Tensor = self.classifier(self.pool(feature_BCHW).flatten(1))
        return logits_BK


def build_backbone(config: ModelConfig, *, in_channels: int, num_classes: int) -> Backbone:
    """Build the backbone that a configuration names, with fresh weights.

    Source: arXiv 1512.03385, table 1 (18 to 101 layers) and section 4.2 (8 and 20 layers), with
    the stem for small images described at the top of this file.

    Args:
        config: name and, if given, channels of the first stage.
        in_channels: channels of the images.
        num_classes: number of logits.

    Returns:
        The network in training mode, in float32, on the CPU. Weights come from torch's global
        generator: the same seed gives the same weights.
    """
    layout = BACKBONES[config.name]
    width = layout.width if config.width is None else config.width
    return Backbone(layout, width=width, in_channels=in_channels, num_classes=num_classes)
