"""Auxiliary classifiers: heads on intermediate stages, dropped after training.

Source: the adapters of *Lightweight Self-Knowledge Distillation with Multi-source Information
Fusion* (arXiv 2305.09183), https://arxiv.org/abs/2305.09183, as published in
github.com/xucong-parsifal/LightSKD; they are the attention branches of
github.com/ArchipLab-LinfengZhang/pytorch-self-distillation-final.

What differs from the published code:

- the channels follow the backbone, measured by a dry forward; published, the adapter of stage 2
  fits bottleneck networks only, the others fit basic blocks only;
- the gate is brought back to the exact size of the map instead of being doubled, which fails on
  maps of odd size; for even sizes the two are the same;
- the average before the linear layer is global for every image size; published, stages 1 and 3
  pool 4x4 windows and fail on any image but 32x32;
- one ``align_corners`` for all stages; published, it is true on stage 2 alone;
- stages without maps, which are not published, get a head of two linear layers;
- the adapter can be narrowed, behind a projection that comes before all else.

Weights start as torch draws them for each layer.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from skdtune.models.description import FeatureShape, StageShape
from skdtune.models.kernels.native import LANES, kernels_for
from skdtune.models.layers.batch_norm_act import BatchNormAct2d
from skdtune.models.layers.convolution import PointwiseConv2d
from skdtune.models.layers.depthwise import DepthwiseConv2d
from skdtune.models.layers.gate import gated


class SepConv(nn.Sequential):
    """Two depth-wise separable convolutions; the first one may halve the resolution.

    ``a*a + a*b + 20*a + 2*b`` parameters for a input and b output channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Build the block; ``stride`` is that of the first depth-wise convolution."""
        super().__init__(
            DepthwiseConv2d(in_channels, stride),
            PointwiseConv2d(in_channels, in_channels),
            BatchNormAct2d(in_channels),
            DepthwiseConv2d(in_channels, 1),
            PointwiseConv2d(in_channels, out_channels),
            BatchNormAct2d(out_channels),
        )


class AttentionGate(nn.Module):
    """Damps a feature map by factors in [0.5, 1] for every channel and position.

    A ReLU comes right before the sigmoid, so the gate can damp and never close.
    """

    def __init__(self, shape: StageShape, *, align_corners: bool) -> None:
        """Build the gate for maps of one stage.

        Args:
            shape: shape of the maps; too small to be halved, they keep their size.
            align_corners: how the bilinear up-sampling places its samples.
        """
        super().__init__()
        stride = 2 if min(shape.height, shape.width) >= 2 else 1
        self.block = SepConv(shape.channels, shape.channels, stride)
        self.norm = BatchNormAct2d(shape.channels)
        self.align_corners = align_corners

    def forward(self, feature_BCHW: Tensor) -> Tensor:
        """Return the map times its gate."""
        small_BChw = self.norm(self.block(feature_BCHW))
        return gated(feature_BCHW, small_BChw, align_corners=self.align_corners)


class AuxiliaryHead(nn.Module):
    """What every auxiliary classifier can do, whatever the stage that it sits on puts out."""

    def forward(self, feature: Tensor) -> Tensor:
        """Classify the outputs of the stage.

        Args:
            feature: output of the stage.

        Returns:
            Logits ``[B, K]``, in the precision of the surrounding autocast; on a CPU without our
            kernels in that of the weights.
        """
        _, logits_BK = self.features_and_logits(feature)
        return logits_BK

    def features_and_logits(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Classify the outputs of the stage and hand out what the last linear layer reads.

        Args:
            feature: output of the stage.

        Returns:
            Pooled features ``[B, C_S]`` with the channels of the last stage, and the logits
            ``[B, K]`` of :meth:`forward`.
        """
        raise NotImplementedError


class AuxiliaryClassifier(AuxiliaryHead):
    """A classifier on one intermediate stage: gate, separable trunk, global average, linear.

    Source: arXiv 2305.09183, the adapter of its public code. With channels ``c_s .. c_S`` from
    its own to the last stage it has ``2c_s^2 + 24c_s + sum(c_i^2 + c_i c_{i+1} + 20c_i +
    2c_{i+1}) + c_S K + K`` parameters.
    """

    def __init__(
        self,
        shapes: Sequence[StageShape],
        stage: int,
        num_classes: int,
        *,
        align_corners: bool = False,
        width: float = 1.0,
    ) -> None:
        """Build the classifier with fresh weights drawn from torch's global generator.

        Args:
            shapes: shapes of all stages of the backbone, first to last.
            stage: the stage it sits on, counted from 1.
            num_classes: K, the number of logits.
            align_corners: how the gate is up-sampled; published as true on stage 2 and false on
                stages 1 and 3.
            width: share of the published channels in gate and trunk, above 0 and at most 1.
                Below 1 a 1x1 convolution, batch normalisation and ReLU narrow the map of the
                stage before the gate; the last block widens to the published ``c_S``.

        Raises:
            ValueError: if the stage does not exist, or is the last one: that feeds the final
                classifier itself.
        """
        super().__init__()
        _require_inner(stage, len(shapes))
        path = [
            replace(shape, channels=narrowed(shape.channels, width))
            for shape in shapes[stage - 1 : -1]
        ]
        path.append(shapes[-1])
        channels = shapes[stage - 1].channels
        if path[0].channels < channels:
            self.narrow = nn.Sequential(
                PointwiseConv2d(channels, path[0].channels), BatchNormAct2d(path[0].channels)
            )
        else:
            # Without tensors: the published classifier has the same state dict as ever.
            self.narrow = nn.Sequential()
        self.gate = AttentionGate(path[0], align_corners=align_corners)
        blocks = []
        for shape, following in pairwise(path):
            # Rounded, since a map of 7 becomes one of 4; never more than 2, since a 3x3 kernel
            # with a larger stride would skip positions and the average at the end takes any size.
            stride = min(2, max(1, round(shape.height / following.height)))
            blocks.append(SepConv(shape.channels, following.channels, stride))
        self.trunk = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(path[-1].channels, num_classes)

    def features_and_logits(self, feature_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Classify maps of any height and width, see :meth:`AuxiliaryHead.features_and_logits`."""
        feature_BCHW = feature_BCHW.contiguous(memory_format=torch.channels_last)
        if feature_BCHW.device.type != "cpu" or self._has_kernels(feature_BCHW):
            return self._pooled_and_logits(feature_BCHW)
        # torch's backward of a strided depth-wise convolution is 10 to 27 times slower in
        # bfloat16 than in float32 on CPUs (measured), which would outweigh the whole backbone.
        with torch.autocast("cpu", enabled=False):
            return self._pooled_and_logits(feature_BCHW.to(self.classifier.weight.dtype))

    def _has_kernels(self, feature_BCHW: Tensor) -> bool:
        """Tell whether all depth-wise convolutions are ours, in the type of the map."""
        dtype = self.classifier.weight.dtype
        depthwise = (module for module in self.modules() if isinstance(module, DepthwiseConv2d))
        return (
            dtype == torch.float32
            and (feature_BCHW.dtype == dtype or torch.is_autocast_enabled("cpu"))
            and all(conv.in_channels % LANES == 0 for conv in depthwise)
            and kernels_for(feature_BCHW) is not None
        )

    def _pooled_and_logits(self, feature_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        narrow_BCHW = self.narrow(feature_BCHW)
        pooled_BC = self.pool(self.trunk(self.gate(narrow_BCHW))).flatten(1)
        return pooled_BC, self.classifier(pooled_BC)


class TokenClassifier(AuxiliaryHead):
    """A classifier on a stage without maps: mean over all positions, linear, ReLU, linear.

    Of no paper: the least that lets a stage classify by features that are its own. With channels
    ``c_s`` of the stage and ``c_S`` of the last one it has ``c_s c_S + c_S + c_S K + K``
    parameters.
    """

    def __init__(
        self,
        shapes: Sequence[StageShape | FeatureShape],
        stage: int,
        num_classes: int,
        *,
        width: float = 1.0,
    ) -> None:
        """Build the classifier with fresh weights drawn from torch's global generator.

        Args:
            shapes: shapes of all stages of the backbone, first to last.
            stage: the stage it sits on, counted from 1.
            num_classes: K, the number of logits.
            width: share of the stage's channels that the hidden layer reads, above 0 and at most
                1; below 1 another linear layer, without bias, brings them to it.

        Raises:
            ValueError: if the stage does not exist or is the last one.
        """
        super().__init__()
        _require_inner(stage, len(shapes))
        channels = shapes[stage - 1].channels
        read = narrowed(channels, width)
        self.narrow: nn.Module = nn.Identity()
        if read < channels:
            self.narrow = nn.Linear(channels, read, bias=False)
        self.hidden = nn.Linear(read, shapes[-1].channels)
        self.classifier = nn.Linear(shapes[-1].channels, num_classes)

    def features_and_logits(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Classify outputs ``[B, ..., C]``, see :meth:`AuxiliaryHead.features_and_logits`."""
        mean_BC = mean_over_positions(feature)
        hidden_BC = self.hidden(self.narrow(mean_BC)).relu()
        return hidden_BC, self.classifier(hidden_BC)


def auxiliary_classifiers(
    shapes: Sequence[StageShape] | Sequence[FeatureShape],
    stages: Sequence[int],
    num_classes: int,
    align_corners: bool | Literal["published"],
    width: float = 1.0,
) -> nn.ModuleDict:
    """Build one auxiliary classifier for each of several stages.

    Source: arXiv 2305.09183; several stages at once are our reading of its abstract, the public
    code uses stage 2 alone.

    Args:
        shapes: shapes of all stages of the backbone, first to last.
        stages: stages to sit on, counted from 1, none of them the last.
        num_classes: number of logits.
        align_corners: for all stages alike; ``"published"`` is true on stage 2 only.
        width: share of the published channels within the classifiers; with 1 they are as
            published.

    Returns:
        The classifiers under the keys of :func:`stage_key`, in the order of ``stages``.

    Raises:
        ValueError: if a stage does not exist or is the last one.
    """
    maps = [shape for shape in shapes if isinstance(shape, StageShape)]
    heads: dict[str, nn.Module] = {}
    for stage in stages:
        if len(maps) < len(shapes):
            heads[stage_key(stage)] = TokenClassifier(shapes, stage, num_classes, width=width)
            continue
        align = stage == 2 if align_corners == "published" else align_corners
        heads[stage_key(stage)] = AuxiliaryClassifier(
            maps, stage, num_classes, align_corners=align, width=width
        )
    return nn.ModuleDict(heads)


def mean_over_positions(feature: Tensor) -> Tensor:
    """Average the output of a stage over all its positions.

    Args:
        feature: A map ``[B, C, H, W]``, or any other output ``[B, ..., C]``.

    Returns:
        Means ``[B, C]``.
    """
    if feature.ndim == 4:
        return feature.mean(dim=(2, 3))
    return feature.reshape(len(feature), -1, feature.shape[-1]).mean(dim=1)


def stage_key(stage: int) -> str:
    """Name a stage in state dicts, for example ``stage2``."""
    return f"stage{stage}"


def narrowed(channels: int, width: float) -> int:
    """Return a share of so many channels.

    Where the channels fill whole vectors of the CPU kernels, so does the share: it is a multiple
    of 16, and 16 at least.

    Args:
        channels: the channels of a stage.
        width: the share, above 0 and at most 1.
    """
    step = 1 if channels % LANES else LANES
    return min(channels, step * max(1, round(width * channels / step)))


def _require_inner(stage: int, num_stages: int) -> None:
    if not 1 <= stage < num_stages:
        raise ValueError(
            f"an auxiliary classifier needs a stage from 1 to {num_stages - 1} "
            f"(the backbone has {num_stages}, the last one excluded), received {stage}"
        )
