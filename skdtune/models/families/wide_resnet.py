"""Wide residual networks for small images, with the activation before the convolution.

Source: *Wide Residual Networks* (arXiv 1605.07146), https://arxiv.org/abs/1605.07146, table 1, and
github.com/szagoruyko/wide-residual-networks; without dropout. A stage puts out the sum of its last
block, which the next stage normalises.

Tensor shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from torch import Tensor, nn

from skdtune.models.backbone import StagedBackbone
from skdtune.models.layers.batch_norm_act import BatchNormAct2d
from skdtune.models.layers.convolution import Conv3x3

_STEM_CHANNELS = 16
_BLOCKS = {"wide_resnet28": 4}


class PreActivationBlock(nn.Module):
    """Normalisation, ReLU and 3x3 convolution, twice, beside a shortcut (figure 1b)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        """Build the block; where its sizes change, the shortcut is a 1x1 convolution."""
        super().__init__()
        self.bn1 = BatchNormAct2d(in_channels)
        self.conv1 = Conv3x3(in_channels, channels, stride)
        self.bn2 = BatchNormAct2d(channels)
        self.conv2 = Conv3x3(channels, channels, 1)
        self.shortcut = (
            nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            if stride != 1 or in_channels != channels
            else None
        )

    def forward(self, feature_BCHW: Tensor) -> Tensor:
        """Return a map of ``channels`` channels, smaller by the stride."""
        active_BCHW = self.bn1(feature_BCHW)
        # A convolution on the shortcut takes what is activated, the identity what is not.
        around_BCHW = feature_BCHW if self.shortcut is None else self.shortcut(active_BCHW)
        output_BCHW: Tensor = self.conv2(self.bn2(self.conv1(active_BCHW))) + around_BCHW
        return output_BCHW


def build(
    name: str,
    *,
    width: int | None,
    in_channels: int,
    image_size: tuple[int, int],
    num_classes: int,
) -> StagedBackbone:
    """Build a wide residual network, see :class:`~skdtune.models.backbone.Builder`.

    Source: arXiv 1605.07146: WRN-28-10 has stages of 160, 320 and 640 channels and 36,479,194
    parameters at 10 classes; the convolutions start as in its code, by their fan-in.

    Args:
        name: ``wide_resnet`` and the number of layers.
        width: Channels of the first stage, 160 for a widening factor of 10.
        in_channels: Channels of the images.
        image_size: Height and width of the images, which may be any.
        num_classes: Number of logits.
    """
    assert width is not None
    stem = Conv3x3(in_channels, _STEM_CHANNELS, 1)
    stages, channels = [], _STEM_CHANNELS
    for index in range(3):
        stage_width = width * 2**index
        blocks = [PreActivationBlock(channels, stage_width, 1 if index == 0 else 2)]
        blocks += [
            PreActivationBlock(stage_width, stage_width, 1) for _ in range(1, _BLOCKS[name])
        ]
        stages.append(nn.Sequential(*blocks))
        channels = stage_width
    pool = nn.Sequential(BatchNormAct2d(channels), nn.AdaptiveAvgPool2d(1))
    network = StagedBackbone(stem, stages, pool, nn.Linear(channels, num_classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    return network
