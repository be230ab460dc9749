"""Residual networks, narrow, wide and of groups, with named stages and a stem for small images.

Source: *Deep Residual Learning for Image Recognition* (arXiv 1512.03385),
https://arxiv.org/abs/1512.03385, *Aggregated Residual Transformations for Deep Neural Networks*
(ResNeXt, arXiv 1611.05431) and *Wide Residual Networks* (arXiv 1605.07146); the blocks have the
layers and the names of torchvision's, so the activation comes after the sum.

What differs from torchvision: batch normalisation, sum and ReLU are one layer
(``batch_norm_act.py``); unless a study says otherwise the stem is one 3x3 convolution with stride
1 and no max-pool, as usual for images of 32 pixels. Networks of 18 layers and more keep four
stages (11,220,132 parameters for ResNet-18 and 23,705,252 for ResNet-50 at 3 channels and 100
classes).
With the stem ``imagenet`` they are torchvision's, tensor by tensor in the order of their state
dicts. ResNet-8/20 are the three-stage networks of section 4.2 of the paper with projection
shortcuts (its option B) instead of zero padding.

Tensor shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from skdtune.catalogues.models import Stem
from skdtune.models.backbone import StagedBackbone
from skdtune.models.layers.batch_norm_act import BatchNormAct2d
from skdtune.models.layers.convolution import Conv3x3
from skdtune.models.layers.stem import convolution_stem


class BlockClass(Protocol):
    """A class of residual blocks; its outputs have ``expansion`` times the given channels."""

    expansion: int

    def __call__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        shortcut: nn.Module | None,
        /,
        *,
        inner: int,
        groups: int,
    ) -> nn.Module:
        """Build one block."""
        ...


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (section 3.3 of the paper)."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        shortcut: nn.Module | None,
        /,
        *,
        inner: int,
        groups: int,
    ) -> None:
        """Build the block; without a shortcut its input itself is added.

        What is between its convolutions has ``channels`` channels in one group.
        """
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
        self,
        in_channels: int,
        channels: int,
        stride: int,
        shortcut: nn.Module | None,
        /,
        *,
        inner: int,
        groups: int,
    ) -> None:
        """Build the block; without a shortcut its input itself is added.

        Its 3x3 convolution maps ``inner`` channels to as many, in ``groups`` groups.
        """
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = BatchNormAct2d(inner)
        self.conv2 = (
            Conv3x3(inner, inner, stride)
            if groups == 1
            else nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        )
        self.bn2 = BatchNormAct2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
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


@dataclass(frozen=True)
class _Layout:
    """What makes a network one of this family."""

    block: BlockClass
    num_blocks: tuple[int, ...]
    widening: int = 1
    """Channels of the 3x3 convolutions in multiples of the usual ones."""

    groups: int = 1


_LAYOUTS: Mapping[str, _Layout] = {
    "resnet8": _Layout(BasicBlock, (1, 1, 1)),
    "resnet20": _Layout(BasicBlock, (3, 3, 3)),
    "resnet18": _Layout(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _Layout(BasicBlock, (3, 4, 6, 3)),
    "resnet50": _Layout(Bottleneck, (3, 4, 6, 3)),
    "resnet101": _Layout(Bottleneck, (3, 4, 23, 3)),
    "resnet152": _Layout(Bottleneck, (3, 8, 36, 3)),
    # 32 groups of 4 channels where ResNet-50 has 64.
    "resnext50": _Layout(Bottleneck, (3, 4, 6, 3), widening=2, groups=32),
    "wide_resnet50": _Layout(Bottleneck, (3, 4, 6, 3), widening=2),
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
    """Build a residual network, see :class:`~skdtune.models.backbone.Builder`.

    The first stage has the size that the stem leaves; every later one doubles the channels and
    halves height and width.

    Source: arXiv 1512.03385, table 1 (18 to 152 layers) and section 4.2 (8 and 20 layers);
    arXiv 1611.05431, table 1 (ResNeXt-50 32x4d); and of 50 layers twice as wide, torchvision's
    after arXiv 1605.07146.

    Args:
        name: A name of the catalogue.
        width: Channels of the stem and, before the expansion of the block, of the first stage; of
            ResNeXt, whose groups divide no others, 64.
        in_channels: Channels of the images.
        image_size: Height and width of the images, which may be any.
        num_classes: Number of logits.
        stem: What it begins with.
    """
    width = width or 64
    layout = _LAYOUTS[name]
    stages: list[nn.Module] = []
    first = convolution_stem(stem, in_channels, width)
    channels = width
    for index, count in enumerate(layout.num_blocks):
        stage_width = width * 2**index
        sizes = {"inner": stage_width * layout.widening, "groups": layout.groups}
        out_channels = stage_width * layout.block.expansion
        stride = 1 if index == 0 else 2
        shortcut: nn.Module | None = None
        if stride != 1 or channels != out_channels:
            shortcut = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False),
                BatchNormAct2d(out_channels, relu=False),
            )
        blocks = [layout.block(channels, stage_width, stride, shortcut, **sizes)]
        blocks += [
            layout.block(out_channels, stage_width, 1, None, **sizes) for _ in range(1, count)
        ]
        stages.append(nn.Sequential(*blocks))
        channels = out_channels
    pool, classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, num_classes)
    network = StagedBackbone(first, stages, pool, classifier)
    network.names_elsewhere = _NAMES_OF_TORCHVISION
    # As torchvision: batch normalization starts at 1 and 0 and the linear layer at torch's
    # defaults, both without our doing.
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
