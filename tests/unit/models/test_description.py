from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from skdtune.models.backbone import Backbone, Outputs, StagedBackbone, build_backbone
from skdtune.models.description import FeatureShape, StageShape, describe_network


def resnet(name: str = "resnet8", width: int = 8, in_channels: int = 3) -> StagedBackbone:
    network = build_backbone(
        name, width=width, in_channels=in_channels, image_size=(8, 8), num_classes=10
    )
    assert isinstance(network, StagedBackbone)
    return network


@pytest.mark.parametrize(
    ("name", "image_shape", "expected"),
    [
        ("resnet8", (1, 8, 8), [(8, 8, 8), (16, 4, 4), (32, 2, 2)]),
        ("resnet18", (1, 8, 8), [(8, 8, 8), (16, 4, 4), (32, 2, 2), (64, 1, 1)]),
        ("resnet50", (3, 28, 20), [(32, 28, 20), (64, 14, 10), (128, 7, 5), (256, 4, 3)]),
    ],
)
def test_shapes_of_maps(
    name: str, image_shape: tuple[int, int, int], expected: list[tuple[int, int, int]]
) -> None:
    network = resnet(name, in_channels=image_shape[0])
    described = describe_network(network, image_shape)
    assert described.stage_shapes == tuple(StageShape(*shape) for shape in expected)
    assert described.num_parameters == sum(p.numel() for p in network.parameters())


def test_measuring_changes_nothing() -> None:
    network = resnet()
    network.stages[1].eval()
    modes = [module.training for module in network.modules()]
    buffers = [buffer.clone() for buffer in network.buffers()]
    random_state = torch.get_rng_state()
    network.stages[0].register_forward_hook(lambda *_: torch.rand(1) and None)
    describe_network(network, (3, 8, 8))
    assert [module.training for module in network.modules()] == modes
    assert all(
        torch.equal(before, after)
        for before, after in zip(buffers, network.buffers(), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_work_of_a_layer_is_the_mean_over_convolutions_and_linear_layers() -> None:
    network = resnet("resnet8", width=8)
    described = describe_network(network, (3, 8, 8))
    # Filters of 3x3, and of 1x1 where a stage halves the map; the classifier at the end.
    stem, first = 8 * 64 * 27, 2 * 8 * 64 * 72
    second = 16 * 16 * (72 + 144 + 8)
    third = 32 * 4 * (144 + 288 + 16)
    layers = 1 + 2 + 3 + 3 + 1
    assert described.layer_multiply_adds == (stem + first + second + third + 32 * 10) / layers
    assert not any(module._forward_hooks for module in network.modules())


def test_measuring_builds_no_graph() -> None:
    network = resnet()
    seen: list[bool] = []
    network.stages[0].register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    describe_network(network, (3, 8, 8))
    assert seen == [False]


def test_shapes_of_a_double_precision_network() -> None:
    described = describe_network(resnet().double(), (3, 8, 8))
    assert described.stage_shapes[0] == StageShape(8, 8, 8)


class Flat(Backbone):
    """A network of its own kind, whose stage puts out vectors, if it is returned at all."""

    def __init__(self, *, forgets: bool = False) -> None:
        super().__init__()
        self.num_stages = 1
        self.forgets = forgets
        self.classifier = nn.Linear(4, 2)

    def forward(self, images_BCHW: Tensor, stages: tuple[int, ...] = ()) -> Outputs:
        flat_BC = images_BCHW.flatten(1)
        features = {1: flat_BC} if stages and not self.forgets else {}
        return Outputs(self.classifier(flat_BC), features, flat_BC)


def test_what_is_no_map_has_sizes() -> None:
    (shape,) = describe_network(Flat(), (1, 2, 2), has_maps=False).stage_shapes
    assert shape == FeatureShape((4,))
    assert shape.channels == 4


def test_a_promised_map_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"stage 1 must put out a map \[B, C, H, W\], received"):
        describe_network(Flat(), (1, 2, 2))


def test_a_stage_that_is_not_returned_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"stage 1 must put out .* received NoneType"):
        describe_network(Flat(forgets=True), (1, 2, 2), has_maps=False)
