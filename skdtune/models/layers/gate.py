"""A feature map times the sigmoid of a smaller map that is enlarged to its size.

On the CPU enlarging, sigmoid and product are one pass of our own (``kernels/gate.h``), elsewhere,
or without a C compiler, torch's three.

Tensor shapes: B batch, C channels, H height, W width, h and w those of the smaller map.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from skdtune.models.kernels.native import LANES, Kernels, channels_last, kernels_for


def gated(feature_BCHW: Tensor, small_BChw: Tensor, *, align_corners: bool) -> Tensor:
    """Compute ``feature * sigmoid(interpolate(small))``, bilinearly.

    Args:
        feature_BCHW: the map that is damped.
        small_BChw: what becomes the gate, before the sigmoid.
        align_corners: how the interpolation places its samples, as in torch.

    Returns:
        A map of the shape and type of ``feature_BCHW``.
    """
    kernels = kernels_for(feature_BCHW)
    same = small_BChw.dtype == feature_BCHW.dtype
    if kernels is None or feature_BCHW.shape[1] % LANES or not same:
        size = feature_BCHW.shape[-2:]
        up_BCHW = F.interpolate(
            small_BChw, size=size, mode="bilinear", align_corners=align_corners
        )
        return up_BCHW.sigmoid() * feature_BCHW
    gated_BCHW: Tensor = _Gate.apply(
        feature_BCHW, channels_last(small_BChw, feature_BCHW), align_corners, kernels
    )
    return gated_BCHW


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, feature_BCHW: Tensor, small_BChw: Tensor, align_corners: bool, kernels: Kernels
    ) -> Tensor:
        """Compute the gated map; the gate itself is not kept."""
        batch, channels, height, width = feature_BCHW.shape
        rows, columns = small_BChw.shape[-2:]
        places = (*_places(rows, height, align_corners), *_places(columns, width, align_corners))
        output_BCHW = torch.empty_like(feature_BCHW)
        ctx.arguments = (batch, height, width, rows, columns, channels, *places)
        kernels("gate", feature_BCHW, small_BChw, output_BCHW, *ctx.arguments)
        ctx.kernels = kernels
        ctx.save_for_backward(feature_BCHW, small_BChw)
        return output_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of both maps."""
        feature_BCHW, small_BChw = ctx.saved_tensors
        gradient_BCHW = channels_last(gradient_BCHW, feature_BCHW)
        g_feature, g_small = torch.empty_like(feature_BCHW), torch.empty_like(small_BChw)
        maps = (feature_BCHW, small_BChw, gradient_BCHW, g_feature, g_small)
        ctx.kernels("gate_backward", *maps, *ctx.arguments)
        return g_feature, g_small, None, None


@lru_cache(maxsize=64)
def _places(small: int, large: int, align_corners: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Say, for each of ``large`` samples, between which two of ``small`` it lies, and where."""
    at = torch.arange(large, dtype=torch.float64, device="cpu")
    if align_corners:
        at = at * ((small - 1) / (large - 1)) if large > 1 else at * 0
    else:
        at = ((at + 0.5) * (small / large) - 0.5).clamp(min=0)
    low = at.floor().long().clamp(max=small - 1)
    high = (low + 1).clamp(max=small - 1)
    return low, high, (at - low).float()
