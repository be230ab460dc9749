"""What a network costs before anything is trained: of the whole, of its stages, of their heads.

Nothing is drawn and nothing is computed: the networks lie on torch's ``meta`` device, where
tensors have shapes and no values.

Tensor shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from skdtune.catalogues.models import StemChoice
from skdtune.models.backbone import Backbone, build_backbone
from skdtune.models.description import FeatureShape, StageShape, describe_network
from skdtune.models.heads.auxiliary import auxiliary_classifiers, stage_key


@dataclass(frozen=True)
class Cost:
    """What a module costs, see :func:`count_multiply_adds` and :func:`count_training_bytes`."""

    num_parameters: int
    """Numbers that are trained."""

    multiply_adds: int
    """Of one image."""

    training_bytes: int
    """Of one image."""


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs at one size of its images."""

    whole: Cost
    """All of it, without what a method adds."""

    stage_shapes: tuple[StageShape, ...] | tuple[FeatureShape, ...]
    """Shapes of what the stages put out for one image, first to last."""

    stage_parameters: tuple[int, ...]
    """Numbers that are trained for each stage and for no earlier one; the first has the stem."""

    @property
    def last_parameters(self) -> int:
        """Numbers that are trained behind the last stage: those of the classifier."""
        return self.whole.num_parameters - sum(self.stage_parameters)


def outline(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    width: int | None = None,
    stem: StemChoice = "default",
) -> Backbone:
    """Build a network of the catalogue without memory and without drawing weights.

    Args:
        name: Name of the network.
        image_shape: Channels, height and width of one image.
        num_classes: Number of logits.
        width: Channels of the first stage; default those of the published network.
        stem: What it begins with.

    Raises:
        KeyError: If there is no such network.
        ValueError: If it has no such stem.
        InputError: If what builds it cannot be imported, or builds something else.
    """
    channels, height, image_width = image_shape
    with torch.device("meta"):
        return build_backbone(
            name,
            width=width,
            in_channels=channels,
            image_size=(height, image_width),
            num_classes=num_classes,
            stem=stem,
        )


def cost_of_network(
    network: Backbone, image_shape: tuple[int, int, int], *, has_maps: bool
) -> NetworkCost:
    """Measure a network.

    Args:
        network: A network of :func:`outline`.
        image_shape: Channels, height and width of one image.
        has_maps: Whether the catalogue says that every stage puts out a map.

    Raises:
        ValueError: If a stage is not returned, or not a map where one is promised.
        RuntimeError: If images of this size cannot be classified.
    """
    shapes = describe_network(network, image_shape, has_maps=has_maps).stage_shapes
    every_stage = tuple(range(1, network.num_stages + 1))
    features = network.eval()(_images(image_shape), every_stage).stage_features
    earlier: set[nn.Parameter] = set()
    stage_parameters = []
    for number in every_stage:
        own = _parameters_behind(features[number]) - earlier
        stage_parameters.append(sum(parameter.numel() for parameter in own))
        earlier |= own
    return NetworkCost(_cost(network, image_shape), shapes, tuple(stage_parameters))


def cost_of_auxiliary_classifiers(
    shapes: tuple[StageShape, ...] | tuple[FeatureShape, ...],
    num_classes: int,
    width: float = 1.0,
) -> dict[int, Cost]:
    """Measure the auxiliary classifiers that stages can carry.

    Args:
        shapes: Shapes of all stages of the backbone, first to last.
        num_classes: Number of logits.
        width: Share of the published channels within them (``adapter_width``).

    Returns:
        The cost of each by its stage, counted from 1: all stages but the last.
    """
    inner = tuple(range(1, len(shapes)))
    with torch.device("meta"):
        heads = auxiliary_classifiers(shapes, inner, num_classes, False, width)
    return {stage: _cost(heads[stage_key(stage)], _sizes(shapes[stage - 1])) for stage in inner}


def count_multiply_adds(module: nn.Module, sizes: tuple[int, ...]) -> int:
    """Count the products of one image that are added up: convolutions, linear layers, attention.

    A multiplication with its addition is one; what papers call FLOPs is one or two for it.

    Args:
        module: A module on the ``meta`` device.
        sizes: All sizes of its input but the batch's.
    """
    counter = FlopCounterMode(display=False)
    # With gradients: without them torch may take a form of attention that nothing is counted in.
    with counter:
        module.eval()(_images(sizes))
    return counter.get_total_flops() // 2


def count_training_bytes(module: nn.Module, sizes: tuple[int, ...]) -> int:
    """Count the memory that one image takes in training: what forward keeps for the backward.

    In float32 and with torch's own layers; bfloat16 takes about half, the CPU kernels take less.
    Weights, their gradients and the optimiser's memory are not in it: they are there once.

    Args:
        module: A module on the ``meta`` device.
        sizes: All sizes of its input but the batch's.
    """
    module.train()
    # The difference of two batches is free of what is kept once for all images.
    two, three = (_kept_bytes(module, _images(sizes, batch)) for batch in (2, 3))
    return three - two


def _cost(module: nn.Module, sizes: tuple[int, ...]) -> Cost:
    return Cost(
        sum(parameter.numel() for parameter in module.parameters()),
        count_multiply_adds(module, sizes),
        count_training_bytes(module, sizes),
    )


def _sizes(shape: StageShape | FeatureShape) -> tuple[int, ...]:
    if isinstance(shape, StageShape):
        return (shape.channels, shape.height, shape.width)
    return shape.sizes


def _images(sizes: tuple[int, ...], batch: int = 1) -> Tensor:
    return torch.empty(batch, *sizes, device="meta")


def _kept_bytes(module: nn.Module, inputs: Tensor) -> int:
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Several views of one memory count once; held on to, so that no address comes twice.
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # Whoever drops the output drops what it keeps.
        _output = module(inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _parameters_behind(feature: Tensor) -> set[nn.Parameter]:
    """Return the parameters that an output was computed with, whatever the modules are called."""
    nodes: list[Any] = [feature.grad_fn]
    seen: set[Any] = set()
    parameters: set[nn.Parameter] = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(parameter := getattr(node, "variable", None), nn.Parameter):
            parameters.add(parameter)
        nodes += [following for following, _ in node.next_functions]
    return parameters
