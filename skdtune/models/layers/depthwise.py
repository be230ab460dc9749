"""Depth-wise 3x3 convolutions, which torch does slowly on a CPU.

In bfloat16 oneDNN's backward of a strided one is 10 to 27 times slower than in float32 (measured),
which would outweigh a whole backbone. On the CPU these are a few lines of our own
(``kernels/depthwise.h``), elsewhere, or without a C compiler, torch's.

Tensor shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skdtune.models.kernels.native import LANES, Kernels, channels_last, kernels_for


class DepthwiseConv2d(nn.Conv2d):
    """A 3x3 convolution of each channel with itself alone, padding 1, no bias."""

    def __init__(self, channels: int, stride: int) -> None:
        """Build the layer with fresh weights drawn from torch's global generator.

        Args:
            channels: number of channels.
            stride: 1 or 2.
        """
        super().__init__(
            channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False
        )

    def forward(self, feature_BCHW: Tensor) -> Tensor:
        """Return a map of the same channels and type, smaller by the stride."""
        kernels = kernels_for(feature_BCHW)
        # The type of the map decides, as autocast would have it.
        if kernels is None or self.in_channels % LANES or self.weight.dtype != torch.float32:
            return super().forward(feature_BCHW)
        output_BChw: Tensor = _Depthwise.apply(feature_BCHW, self.weight, self.stride[0], kernels)
        return output_BChw


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, feature_BCHW: Tensor, weight_C133: Tensor, stride: int, kernels: Kernels
    ) -> Tensor:
        """Compute the convolution."""
        taps_9C = weight_C133.reshape(-1, 9).t().contiguous()
        batch, channels, height, width = feature_BCHW.shape
        output_BChw = torch.empty(
            (batch, channels, -(-height // stride), -(-width // stride)),
            dtype=feature_BCHW.dtype,
            device=feature_BCHW.device,
            memory_format=torch.channels_last,
        )
        ctx.sizes = (batch, height, width, channels, stride)
        kernels("depthwise", feature_BCHW, taps_9C, output_BChw, *ctx.sizes)
        ctx.kernels = kernels
        ctx.save_for_backward(feature_BCHW, taps_9C)
        return output_BChw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BChw: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the map and of the weight."""
        feature_BCHW, taps_9C = ctx.saved_tensors
        gradient_BChw = channels_last(gradient_BChw, feature_BCHW)
        input_BCHW = torch.empty_like(feature_BCHW)
        weight_9C = torch.empty_like(taps_9C, dtype=torch.float64)
        maps = (feature_BCHW, taps_9C, gradient_BChw, input_BCHW, weight_9C)
        ctx.kernels("depthwise_backward", *maps, *ctx.sizes)
        weight_C133 = weight_9C.t().float().reshape(-1, 1, 3, 3)
        return input_BCHW, weight_C133, None, None
