"""BiFPN: an auxiliary network that refines the maps of all stages, dropped after training.

Source: BiFPNc of *Refine Myself by Teaching Myself: Feature Refinement via Self-Knowledge
Distillation* (arXiv 2103.08273), https://arxiv.org/abs/2103.08273, as published in
github.com/MingiJi/FRSKD with one repetition; the two paths and the fusion are those of
EfficientDet (arXiv 1911.09070).

The parameters are those of the published network: 6,375,794 for the stages of ResNet-18 at width
2, depth 2 and 100 classes, 1,538,866 at width 1 and depth 1.

What differs from the published code:

- maps are brought to the exact size of their neighbours; published, sizes must halve exactly;
- on the way down the 1x1 convolution comes before the enlargement, a quarter of the work; where
  sizes double exactly it is the same function, but for the running variances, which count n
  positions instead of 4n.

Tensor shapes: B batch, C channels, H height, W width, h and w those of the neighbour, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skdtune.models.description import FeatureShape, StageShape
from skdtune.models.layers.batch_norm_act import BatchNormAct2d
from skdtune.models.layers.convolution import PointwiseConv2d
from skdtune.models.layers.depthwise import DepthwiseConv2d


class Projection(nn.Sequential):
    """A 1x1 convolution, batch normalisation and ReLU; ``a*b + 2*b`` parameters."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Build the layers."""
        super().__init__(PointwiseConv2d(in_channels, out_channels), BatchNormAct2d(out_channels))


class SeparableStack(nn.Sequential):
    """``depth`` depth-wise separable convolutions; ``depth * (c*c + 11*c)`` parameters."""

    def __init__(self, channels: int, depth: int) -> None:
        """Build the layers, all of which keep channels and size."""
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers.append(DepthwiseConv2d(channels, 1))
            layers.append(PointwiseConv2d(channels, channels))
            layers.append(BatchNormAct2d(channels))
        super().__init__(*layers)


class Fusion(nn.Module):
    """Weighted mean of maps with learned weights that are never negative.

    Source: "fast normalized fusion" of arXiv 1911.09070, section 3.3, with eps 1e-6.
    """

    def __init__(self, num_maps: int) -> None:
        """Build the weights, equal at first."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_maps))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return ``sum_i w_i x_i / (sum_i w_i + eps)`` with ``w = relu(weight)``.

        Args:
            maps: as many maps as there are weights, all of one shape ``[B, C, H, W]``.

        Returns:
            A map of that shape, in the type of the first.
        """
        weight = F.relu(self.weight)
        share = weight / (weight.sum() + 1e-6)
        mixed_BCHW = maps[0] * share[0]
        for map_BCHW, part in zip(maps[1:], share[1:], strict=True):
            mixed_BCHW = mixed_BCHW + map_BCHW.to(mixed_BCHW.dtype) * part
        return mixed_BCHW


class TopDownNode(nn.Module):
    """Refines the map of a stage with what the next, deeper one has become."""

    def __init__(self, channels: int, deeper_channels: int, *, width: int, depth: int) -> None:
        """Build the node for the channels of two neighbouring stages of the backbone."""
        super().__init__()
        self.lateral = Projection(channels, width * channels)
        self.project = Projection(width * deeper_channels, width * channels)
        self.fusion = Fusion(2)
        self.block = SeparableStack(width * channels, depth)

    def forward(self, feature_BCHW: Tensor, deeper_BChw: Tensor) -> Tensor:
        """Return a map of the size of the feature."""
        deeper_BCHW, size = self.project(deeper_BChw), feature_BCHW.shape[-2:]
        if deeper_BCHW.shape[-2:] != size:
            deeper_BCHW = F.interpolate(deeper_BCHW, size=size, mode="nearest")
        refined_BCHW: Tensor = self.block(self.fusion([self.lateral(feature_BCHW), deeper_BCHW]))
        return refined_BCHW


class BottomUpNode(nn.Module):
    """Refines the map of a stage with what the one before has become."""

    def __init__(
        self, channels: int, earlier_channels: int, num_maps: int, *, width: int, depth: int
    ) -> None:
        """Build the node; it fuses three maps, or two at the last stage."""
        super().__init__()
        self.lateral = Projection(channels, width * channels)
        self.project = Projection(width * earlier_channels, width * channels)
        self.fusion = Fusion(num_maps)
        self.block = SeparableStack(width * channels, depth)

    def forward(
        self, feature_BCHW: Tensor, inner: Sequence[Tensor], earlier_BChw: Tensor
    ) -> Tensor:
        """Return a map of the size of the feature.

        Args:
            feature_BCHW: map of the backbone.
            inner: the map of the way down, or nothing at the last stage.
            earlier_BChw: refined map of the stage before.
        """
        height, width = earlier_BChw.shape[-2:]
        if feature_BCHW.shape[-2:] != (-(-height // 2), -(-width // 2)):
            pooled_BCHW = F.adaptive_max_pool2d(earlier_BChw, feature_BCHW.shape[-2:])
        else:
            # TensorFlow's "same" padding: at even sizes all of it comes after the last position,
            # which is what a window that ends outside does.
            padding = (height % 2, width % 2)
            pooled_BCHW = F.max_pool2d(earlier_BChw, 3, stride=2, padding=padding, ceil_mode=True)
        earlier_BCHW = self.project(pooled_BCHW)
        maps = [self.lateral(feature_BCHW), *inner, earlier_BCHW]
        refined_BCHW: Tensor = self.block(self.fusion(maps))
        return refined_BCHW


class BiFPN(nn.Module):
    """Refines the maps of all stages, from the last to the first and back, and classifies.

    Source: BiFPNc of arXiv 2103.08273. At the last stage the way back takes the backbone's map
    and the stage before, not what began the way down, as published.
    """

    def __init__(
        self,
        shapes: Sequence[StageShape] | Sequence[FeatureShape],
        num_classes: int,
        *,
        width: int,
        depth: int,
    ) -> None:
        """Build the network with fresh weights drawn from torch's global generator.

        Args:
            shapes: shapes of all stages of the backbone, first to last, at least two; only their
                channels matter.
            num_classes: K, the number of logits.
            width: how many times the channels of the backbone each refined map has.
            depth: separable convolutions in each node.

        Raises:
            ValueError: if there are fewer than two stages, or they put out no maps.
        """
        super().__init__()
        if any(isinstance(shape, FeatureShape) for shape in shapes):
            raise ValueError("a BiFPN needs stages that put out maps [B, C, H, W]")
        if len(shapes) < 2:
            raise ValueError(
                f"a BiFPN needs the maps of at least 2 stages, received {len(shapes)}"
            )
        channels = [shape.channels for shape in shapes]
        last = len(shapes) - 1
        self.top = Projection(channels[-1], width * channels[-1])
        self.top_down = nn.ModuleList(
            TopDownNode(here, deeper, width=width, depth=depth)
            for here, deeper in pairwise(channels)
        )
        self.bottom_up = nn.ModuleList(
            BottomUpNode(here, earlier, 2 if stage == last else 3, width=width, depth=depth)
            for stage, (earlier, here) in enumerate(pairwise(channels), 1)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width * channels[-1], num_classes)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Refine the maps of all stages and classify the last one.

        Args:
            features: maps ``x_s`` ``[B, C_s, H_s, W_s]`` of the backbone after ReLU, one for each
                stage, first to last, of any sizes.

        Returns:
            Refined maps ``v_s`` ``[B, width*C_s, H_s, W_s]``, and logits ``[B, K]``.
        """
        features = [map_.contiguous(memory_format=torch.channels_last) for map_ in features]
        # The way down: maps for all stages but the last, first to last.
        deeper_BChw = self.top(features[-1])
        inner: list[Tensor] = []
        for node, feature_BCHW in zip(
            reversed(self.top_down), reversed(features[:-1]), strict=True
        ):
            deeper_BChw = node(feature_BCHW, deeper_BChw)
            inner.insert(0, deeper_BChw)
        # And the way back up, to refine each.
        refined = [inner[0]]
        for stage, node in enumerate(self.bottom_up, 1):
            refined.append(node(features[stage], inner[stage : stage + 1], refined[-1]))
        logits_BK: Tensor = self.classifier(self.pool(refined[-1]).flatten(1))
        return refined, logits_BK
