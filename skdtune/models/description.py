"""What can be measured of a network: the shapes of what its stages put out, and its parameters.

Tensor shapes: B batch, C channels, H height, W width, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from skdtune.models.backbone import Backbone


@dataclass(frozen=True)
class StageShape:
    """Shape of one stage's map for one image."""

    channels: int
    """Channels C."""

    height: int
    """Height H in positions."""

    width: int
    """Width W in positions."""


@dataclass(frozen=True)
class FeatureShape:
    """Shape of one stage's output for one image, where it is no map."""

    sizes: tuple[int, ...]
    """All sizes but the batch's, ``(T, C)`` for tokens."""

    @property
    def channels(self) -> int:
        """Channels C, which come last."""
        return self.sizes[-1]


@dataclass(frozen=True)
class NetworkDescription:
    """What can be measured of a network."""

    stage_shapes: tuple[StageShape, ...] | tuple[FeatureShape, ...]
    """Shapes of all stages, first to last."""

    num_parameters: int
    """Numbers that are trained."""

    layer_multiply_adds: float = 0.0
    """Products of one image in a convolution or a linear layer, the mean over all of them."""


def describe_network(
    network: Backbone, image_shape: tuple[int, int, int], *, has_maps: bool = True
) -> NetworkDescription:
    """Measure a network with one forward of a zero image.

    Nothing is left changed: not the statistics of batch normalization, not the training mode
    of any module, not the state of the random generators.

    Args:
        network: Any backbone.
        image_shape: Channels, height and width of one image.
        has_maps: Whether the catalogue says that every stage puts out a map.

    Raises:
        ValueError: If a stage is not returned or not a map ``[B, C, H, W]`` where one is promised.
    """
    reference = next(network.parameters(), torch.empty(0))
    image_BCHW = torch.zeros(1, *image_shape, device=reference.device, dtype=reference.dtype)
    cuda_devices = [reference.device] if reference.is_cuda else []
    every_stage = tuple(range(1, network.num_stages + 1))
    with (
        _evaluation_mode(network),
        torch.no_grad(),
        torch.random.fork_rng(cuda_devices),
        _counted_products(network) as products,
    ):
        # Not by a call, which may be compiled: one image is not worth a graph.
        features = network.forward(image_BCHW, every_stage).stage_features
    expected = "a map [B, C, H, W]" if has_maps else "a tensor [B, ..., C]"
    for number in every_stage:
        ndim = getattr(features.get(number), "ndim", 0)
        if ndim < 2 or (has_maps and ndim != 4):
            feature = features.get(number)
            received = list(getattr(feature, "shape", ())) or type(feature).__name__
            raise ValueError(f"stage {number} must put out {expected}, received {received}")
    sizes = [tuple(features[number].shape[1:]) for number in every_stage]
    return NetworkDescription(
        tuple(StageShape(*size) for size in sizes)
        if has_maps
        else tuple(FeatureShape(size) for size in sizes),
        sum(parameter.numel() for parameter in network.parameters()),
        sum(products) / max(1, len(products)),
    )


@contextmanager
def _counted_products(network: nn.Module) -> Iterator[list[int]]:
    """Collect the multiply-adds of each call of a layer that is all products."""
    products: list[int] = []

    def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        # For each number that it puts out, a layer multiplies one filter, or row of weights.
        products.append(output.numel() * layer.weight[0].numel())  # type: ignore[index]

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, kinds)]
    try:
        yield products
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    # Module by module: a caller may have put only a part of the network into evaluation mode.
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
