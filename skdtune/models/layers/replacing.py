"""Layers of a network of torchvision replaced by ours, which compute the same."""

from __future__ import annotations

import torch
from torch import nn

from skdtune.models.layers.batch_norm_act import BatchNormAct2d
from skdtune.models.layers.convolution import Conv3x3, PointwiseConv2d
from skdtune.models.layers.depthwise import DepthwiseConv2d


def with_our_layers(module: nn.Module) -> nn.Module:
    """Replace what a module holds, at any depth; parameters and their names stay the same.

    In a chain (``torch.nn.Sequential``) batch normalisation takes over the ReLU after it. Where a
    module calls its parts in an order of its own, the order is not known, and ReLU stays.

    Returns:
        The module itself, or what takes its place.
    """
    for name, child in module.named_children():
        module.add_module(name, with_our_layers(child))
    if isinstance(module, nn.Sequential):
        for index in range(len(module) - 1):
            norm, following = module[index], module[index + 1]
            if isinstance(norm, BatchNormAct2d) and type(following) is nn.ReLU and not norm.relu:
                norm.relu = True
                # Keeps the place, and so the names of those behind it.
                module[index + 1] = nn.Identity()
    ours = _replacement(module)
    if ours is None:
        return module
    # The parameters go over as they are; the layer's own were never drawn.
    for name, parameter in module.named_parameters(recurse=False):
        setattr(ours, name, parameter)
    for name, buffer in module.named_buffers(recurse=False):
        setattr(ours, name, buffer)
    return ours


def _replacement(module: nn.Module) -> nn.Module | None:
    """Return our layer in place of one of torch's, on the meta device; None if there is none."""
    with torch.device("meta"):
        if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats:
            return BatchNormAct2d(
                module.num_features, relu=False, eps=module.eps, momentum=module.momentum
            )
        if type(module) is not nn.Conv2d or module.bias is not None or module.dilation != (1, 1):
            return None
        inputs, outputs, stride = module.in_channels, module.out_channels, module.stride[0]
        if module.kernel_size == (1, 1) and module.groups == stride == 1:
            return PointwiseConv2d(inputs, outputs)
        if module.kernel_size != (3, 3) or module.padding != (1, 1):
            return None
        if module.groups == inputs == outputs and stride in (1, 2):
            return DepthwiseConv2d(inputs, stride)
        return Conv3x3(inputs, outputs, stride) if module.groups == 1 else None
