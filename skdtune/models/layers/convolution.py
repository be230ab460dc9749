"""Convolutions, as matrix products where that is faster.

On processors with AMX, oneDNN's convolutions of many channels on maps of a few positions are far
slower than matrix products of the same size: the last stage of a ResNet-18 on small images. 1x1
convolutions of many channels gain, too. Everywhere else these are ``nn.Conv2d``. The ceiling of
``benchmarks/training.py`` times both forms of each layer and takes the faster.

Tensor shapes: B batch, C channels, K channels of the output, H height, W width, h and w those of
the output.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_MAX_POSITIONS = 16
_MIN_CHANNELS = 256
_MIN_POINTWISE_CHANNELS = 128


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution without bias, which is a matrix product over the channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        """Build the layer with fresh weights drawn from torch's global generator."""
        super().__init__(in_channels, channels, 1, bias=False)

    def forward(self, feature_BCHW: Tensor) -> Tensor:
        """Return a map of the other channels and the same size."""
        if feature_BCHW.device.type != "cpu" or self.in_channels < _MIN_POINTWISE_CHANNELS:
            return super().forward(feature_BCHW)
        feature_BHWC = feature_BCHW.permute(0, 2, 3, 1)
        return F.linear(feature_BHWC, self.weight.flatten(1)).permute(0, 3, 1, 2)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1 and no bias."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        """Build the layer with fresh weights drawn from torch's global generator."""
        super().__init__(in_channels, channels, 3, stride=stride, padding=1, bias=False)

    def forward(self, feature_BCHW: Tensor) -> Tensor:
        """Return a map of the other channels, smaller by the stride."""
        if not self._is_better_as_product(feature_BCHW):
            return super().forward(feature_BCHW)
        output_BKhw: Tensor = _ConvolutionAsProduct.apply(
            feature_BCHW, self.weight, self.stride[0]
        )
        return output_BKhw

    def _is_better_as_product(self, feature_BCHW: Tensor) -> bool:
        _, channels, height, width = feature_BCHW.shape
        stride = self.stride[0]
        positions = -(-height // stride) * -(-width // stride)
        # A fixed rule and no trial on the spot: a resumed trial must compute as it did before.
        return (
            feature_BCHW.device.type == "cpu"
            and feature_BCHW.dtype == torch.bfloat16
            and torch.is_autocast_enabled("cpu")
            and channels >= _MIN_CHANNELS
            and positions <= _MAX_POSITIONS
            and _has_amx()
        )


@lru_cache(maxsize=1)
def _has_amx() -> bool:
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported is not None and supported())


class _ConvolutionAsProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature_BCHW: Tensor, weight_KC33: Tensor, stride: int) -> Tensor:
        """Compute the convolution in the type of the map."""
        weight_K9C = weight_KC33.to(feature_BCHW.dtype).permute(0, 2, 3, 1).flatten(1)
        windows_M9C, (height, width) = _windows(feature_BCHW, stride)
        ctx.save_for_backward(feature_BCHW, weight_K9C)
        ctx.stride = stride
        return _as_map(windows_M9C @ weight_K9C.t(), len(feature_BCHW), height, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BKhw: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the map and of the weight."""
        feature_BCHW, weight_K9C = ctx.saved_tensors
        batch, channels, height, width = feature_BCHW.shape
        gradient_BKhw = gradient_BKhw.to(feature_BCHW.dtype)
        gradient_MK = gradient_BKhw.permute(0, 2, 3, 1).reshape(-1, len(weight_K9C))
        windows_M9C, _ = _windows(feature_BCHW, ctx.stride)
        weight_K33C = (gradient_MK.t() @ windows_M9C).float().view(-1, 3, 3, channels)
        taps_K33C = weight_K9C.view(-1, 3, 3, channels)
        if ctx.stride == 1:
            # The gradient of the map is a convolution with the mirrored taps.
            mirrored_9KC = taps_K33C.flip(1, 2).permute(1, 2, 0, 3).reshape(-1, channels)
            around_M9K, _ = _windows(gradient_BKhw, 1)
            input_BCHW = _as_map(around_M9K @ mirrored_9KC, batch, height, width)
        else:
            weight_KC33 = taps_K33C.permute(0, 3, 1, 2)
            geometry = ([ctx.stride, ctx.stride], [1, 1], [1, 1], False, [0, 0], 1)
            input_BCHW, _, _ = torch.ops.aten.convolution_backward(
                gradient_BKhw, feature_BCHW, weight_KC33, None, *geometry, [True, False, False]
            )
        return input_BCHW, weight_K33C.permute(0, 3, 1, 2), None


def _windows(feature_BCHW: Tensor, stride: int) -> tuple[Tensor, tuple[int, int]]:
    """Lay out the 3x3 neighbourhood of every output position as a row of 9 * C values."""
    padded_BHWC = F.pad(feature_BCHW.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    windows_BhwC33 = padded_BHWC.unfold(1, 3, stride).unfold(2, 3, stride)
    batch, height, width, channels = windows_BhwC33.shape[:4]
    rows = windows_BhwC33.permute(0, 1, 2, 4, 5, 3).reshape(batch * height * width, 9 * channels)
    return rows, (height, width)


def _as_map(rows_MK: Tensor, batch: int, height: int, width: int) -> Tensor:
    """View rows of channels as a map, channels last in memory."""
    return rows_MK.view(batch, height, width, -1).permute(0, 3, 1, 2)
