"""Batch normalisation, the sum with a shortcut and ReLU as one operation.

Small networks spend half of a training step on these three, each of which reads and writes whole
feature maps. On the CPU they are one operation of our own (``kernels/batch_norm_act.h``),
elsewhere, or without a C compiler, torch's three. Both compute the same function; ours rounds to
bfloat16 once instead of up to three times.

Source of the name and the idea: ``BatchNormAct2d`` of https://github.com/huggingface/pytorch-image-models.

Tensor shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skdtune.models.kernels.native import LANES, Kernels, channels_last, kernels_for


class BatchNormAct2d(nn.BatchNorm2d):
    """``relu(batch_norm(x) + residual)``, with the parameters and buffers of ``BatchNorm2d``."""

    def __init__(
        self, channels: int, *, relu: bool = True, eps: float = 1e-5, momentum: float | None = 0.1
    ) -> None:
        """Build the layer with weight 1 and bias 0.

        Args:
            channels: number of channels.
            relu: whether ReLU comes last.
            eps: what is added to the variance.
            momentum: share of a batch in the running statistics.
        """
        super().__init__(channels, eps=eps, momentum=momentum)
        self.relu = relu

    def forward(self, feature_BCHW: Tensor, residual_BCHW: Tensor | None = None) -> Tensor:
        """Normalise, add and rectify.

        Args:
            feature_BCHW: output of a convolution.
            residual_BCHW: what is added before ReLU, of the same shape.

        Returns:
            A map of the same shape and type.
        """
        kernels = kernels_for(feature_BCHW)
        if kernels is None or not self._is_fusable(feature_BCHW):
            normal_BCHW = super().forward(feature_BCHW)
            if residual_BCHW is not None:
                normal_BCHW = normal_BCHW + residual_BCHW
            return F.relu(normal_BCHW, inplace=True) if self.relu else normal_BCHW
        if residual_BCHW is not None:
            residual_BCHW = channels_last(residual_BCHW, feature_BCHW)
        if not self.training:
            output_BCHW = torch.empty_like(feature_BCHW)
            maps = (feature_BCHW, residual_BCHW, output_BCHW)
            values = (self.weight, self.bias, self.running_mean, self.running_var)
            sizes = _sizes(feature_BCHW)
            kernels("batch_norm_act_inference", *maps, *sizes, *values, self.eps, self.relu)
            return output_BCHW
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        fused_BCHW: Tensor = _FusedBatchNormAct.apply(
            feature_BCHW, residual_BCHW, self.weight, self.bias, self, kernels
        )
        return fused_BCHW

    def _is_fusable(self, feature_BCHW: Tensor) -> bool:
        batch, channels, height, width = feature_BCHW.shape
        return (
            self.weight.dtype == torch.float32
            and self.momentum is not None
            # In evaluation nobody asks for gradients; who does gets them from torch.
            and (self.training or not torch.is_grad_enabled())
            # Of a single value per channel there is no variance, which torch says.
            and batch * height * width > 1
            and batch * height * width % _fold(channels) == 0
        )


class _FusedBatchNormAct(torch.autograd.Function):
    """The training forward and its backward, in C."""

    @staticmethod
    def forward(
        ctx: Any,
        feature_BCHW: Tensor,
        residual_BCHW: Tensor | None,
        weight_C: Tensor,
        bias_C: Tensor,
        layer: BatchNormAct2d,
        kernels: Kernels,
    ) -> Tensor:
        """Compute the output; the layer's running moments move."""
        output_BCHW = torch.empty_like(feature_BCHW)
        sizes = _sizes(feature_BCHW)
        saved = feature_BCHW.new_empty(4 * sizes[1], dtype=torch.float32)
        moments = (layer.running_mean, layer.running_var, layer.momentum, layer.eps)
        maps = (feature_BCHW, residual_BCHW, output_BCHW)
        kernels("batch_norm_act", *maps, *sizes, weight_C, bias_C, *moments, layer.relu, saved)
        # Written behind autograd's back, which must know.
        written = (layer.running_mean, layer.running_var)
        torch.autograd.graph.increment_version([m for m in written if m is not None])
        ctx.kernels, ctx.relu, ctx.has_residual = kernels, layer.relu, residual_BCHW is not None
        # Where a residual was added, the sign of the output cannot be computed from the input.
        output = output_BCHW if ctx.has_residual and layer.relu else None
        ctx.save_for_backward(feature_BCHW, output, saved)
        return output_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of feature, residual, weight and bias."""
        feature_BCHW, output_BCHW, saved = ctx.saved_tensors
        gradient_BCHW = channels_last(gradient_BCHW, feature_BCHW)
        input_BCHW = torch.empty_like(feature_BCHW)
        masked_BCHW = None if output_BCHW is None else torch.empty_like(feature_BCHW)
        weight_C, bias_C = saved.new_empty(2, feature_BCHW.shape[1])
        maps = (feature_BCHW, output_BCHW, gradient_BCHW, input_BCHW, masked_BCHW)
        sizes = _sizes(feature_BCHW)
        ctx.kernels("batch_norm_act_backward", *maps, *sizes, saved, ctx.relu, weight_C, bias_C)
        residual_BCHW = gradient_BCHW if masked_BCHW is None else masked_BCHW
        return (
            input_BCHW,
            residual_BCHW if ctx.has_residual else None,
            weight_C,
            bias_C,
            None,
            None,
        )


def _fold(channels: int) -> int:
    """Count the positions that make one row of whole vectors."""
    return LANES // math.gcd(channels, LANES)


def _sizes(feature_BCHW: Tensor) -> tuple[int, int, int]:
    """Return rows, channels of a row and positions in a row, as the C sees a map."""
    batch, channels, height, width = feature_BCHW.shape
    fold = _fold(channels)
    return batch * height * width // fold, channels * fold, fold
