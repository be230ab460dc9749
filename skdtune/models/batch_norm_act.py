"""Batch normalisation, the sum with a shortcut and ReLU as one operation.

Small networks spend half of a training step on these three, each of which reads and writes whole
feature maps. On the CPU they are one pass of our own (``batch_norm_act.c``), elsewhere, or without
a C compiler, torch's three. Both compute the same function; on the CPU the fused one rounds
to bfloat16 once instead of up to three times.

Source of the name and the idea: ``BatchNormAct2d`` of https://github.com/huggingface/pytorch-image-models.

Tensor shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skdtune.models.native import native_library

_LANES = 16
_SUFFIXES = {torch.bfloat16: "bf16", torch.float32: "f32"}


class BatchNormAct2d(nn.BatchNorm2d):
    """``relu(batch_norm(x) + residual)``; parameters, buffers and names are ``nn.BatchNorm2d``'s."""

    def __init__(self, channels: int, *, relu: bool = True) -> None:
        """Build the layer with weight 1 and bias 0.

        Args:
            channels: number of channels.
            relu: whether ReLU comes last.
        """
        super().__init__(channels)
        self.relu = relu

    def forward(self, feature_BCHW: Tensor, residual_BCHW: Tensor | None = None) -> Tensor:
        """Normalise, add and rectify.

        Args:
            feature_BCHW: output of a convolution.
            residual_BCHW: what is added before ReLU, of the same shape.

        Returns:
            A map of the same shape and type.
        """
        library = native_library() if feature_BCHW.device.type == "cpu" else None
        if library is None or not self._is_fusable(feature_BCHW):
            return self._separate(feature_BCHW, residual_BCHW)
        if residual_BCHW is not None:
            residual_BCHW = residual_BCHW.to(
                feature_BCHW.dtype, memory_format=torch.channels_last
            ).contiguous(memory_format=torch.channels_last)
        if self.training:
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            fused: Tensor = _FusedBatchNormAct.apply(
                feature_BCHW, residual_BCHW, self.weight, self.bias, self, library
            )  # type: ignore[no-untyped-call]
            return fused
        if torch.is_grad_enabled() and feature_BCHW.requires_grad:
            return self._separate(feature_BCHW, residual_BCHW)
        return _inference(feature_BCHW, residual_BCHW, self, library)

    def _is_fusable(self, feature_BCHW: Tensor) -> bool:
        batch, channels, height, width = feature_BCHW.shape
        return (
            feature_BCHW.dtype in _SUFFIXES
            and self.weight.dtype == torch.float32
            and self.momentum is not None
            and feature_BCHW.is_contiguous(memory_format=torch.channels_last)
            and batch * height * width > 1
            and batch * height * width % _fold(channels) == 0
        )

    def _separate(self, feature_BCHW: Tensor, residual_BCHW: Tensor | None) -> Tensor:
        normal_BCHW = super().forward(feature_BCHW)
        if residual_BCHW is not None:
            normal_BCHW = normal_BCHW + residual_BCHW
        return F.relu(normal_BCHW, inplace=True) if self.relu else normal_BCHW


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
        library: ctypes.CDLL,
    ) -> Tensor:
        output_BCHW = torch.empty_like(feature_BCHW)
        sizes = _sizes(feature_BCHW)
        saved = torch.empty(4 * sizes[1], dtype=torch.float32)
        _call(
            library,
            "forward",
            feature_BCHW,
            residual_BCHW,
            output_BCHW,
            *sizes,
            weight_C,
            bias_C,
            layer.running_mean,
            layer.running_var,
            layer.momentum,
            layer.eps,
            layer.relu,
            saved,
        )
        ctx.library, ctx.relu, ctx.has_residual = library, layer.relu, residual_BCHW is not None
        # Where a residual was added, the sign of the output cannot be computed from the input.
        output = output_BCHW if ctx.has_residual and layer.relu else None
        ctx.save_for_backward(feature_BCHW, output, saved)
        return output_BCHW

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        feature_BCHW, output_BCHW, saved = ctx.saved_tensors
        gradient_BCHW = gradient_BCHW.to(feature_BCHW.dtype).contiguous(
            memory_format=torch.channels_last
        )
        input_BCHW = torch.empty_like(feature_BCHW)
        masked_BCHW = None if output_BCHW is None else torch.empty_like(feature_BCHW)
        sizes = _sizes(feature_BCHW)
        weight_C, bias_C = torch.empty(2, feature_BCHW.shape[1], dtype=torch.float32)
        _call(
            ctx.library,
            "backward",
            feature_BCHW,
            output_BCHW,
            gradient_BCHW,
            input_BCHW,
            masked_BCHW,
            *sizes,
            saved,
            ctx.relu,
            weight_C,
            bias_C,
        )
        residual_BCHW = gradient_BCHW if masked_BCHW is None else masked_BCHW
        return input_BCHW, residual_BCHW if ctx.has_residual else None, weight_C, bias_C, None, None


def _inference(
    feature_BCHW: Tensor,
    residual_BCHW: Tensor | None,
    layer: BatchNormAct2d,
    library: ctypes.CDLL,
) -> Tensor:
    output_BCHW = torch.empty_like(feature_BCHW)
    _call(
        library,
        "inference",
        feature_BCHW,
        residual_BCHW,
        output_BCHW,
        *_sizes(feature_BCHW),
        layer.weight,
        layer.bias,
        layer.running_mean,
        layer.running_var,
        layer.eps,
        layer.relu,
    )
    return output_BCHW


def _fold(channels: int) -> int:
    """Count the positions that make one row of whole vectors."""
    return _LANES // math.gcd(channels, _LANES)


def _sizes(feature_BCHW: Tensor) -> tuple[int, int, int]:
    """Return rows, channels of a row and positions in a row, as the C sees a map."""
    batch, channels, height, width = feature_BCHW.shape
    fold = _fold(channels)
    return batch * height * width // fold, channels * fold, fold


def _call(library: ctypes.CDLL, name: str, *arguments: Any) -> None:
    """Call a function for the type of its first tensor; None is a null pointer.

    Raises:
        MemoryError: If its small buffers could not be had.
    """
    plain = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    if getattr(library, f"{name}_{_SUFFIXES[arguments[0].dtype]}")(*plain):
        raise MemoryError(f"batch normalisation ({name})")
