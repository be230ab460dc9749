from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from skdtune.describe.config import ModelConfig
from skdtune.models.families.resnet import build_backbone
from skdtune.models.taps import StageShape, TappedBackbone


def tapped_resnet(name: str = "resnet8", width: int = 8, in_channels: int = 3) -> TappedBackbone:
    config = ModelConfig(name=name, width=width)
    backbone = build_backbone(config, in_channels=in_channels, num_classes=10)
    return TappedBackbone(backbone, backbone.stages)


def num_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_tapped_features_are_the_stage_outputs() -> None:
    network = tapped_resnet().eval()
    images_BCHW = torch.randn(2, 3, 16, 16)
    logits_BK, features = network(images_BCHW, (3, 1))
    backbone = network.backbone
    expected_BCHW = backbone.stages[0](backbone.stem(images_BCHW))
    assert set(features) == {1, 3}
    assert torch.equal(features[1], expected_BCHW)
    assert torch.equal(logits_BK, backbone(images_BCHW))
    assert torch.equal(backbone.classifier(features[3].mean(dim=(2, 3))), logits_BK)


def test_gradients_flow_through_a_tap() -> None:
    network = tapped_resnet()
    _, features = network(torch.randn(2, 3, 8, 8), (1,))
    features[1].sum().backward()
    assert network.backbone.stem[0].weight.grad is not None
    assert network.backbone.stages[1][0].conv1.weight.grad is None


@pytest.mark.parametrize("tapped", [(), (1, 2)])
def test_nothing_is_left_behind(tapped: tuple[int, ...]) -> None:
    network = tapped_resnet()
    with torch.no_grad():
        _, features = network(torch.randn(2, 3, 8, 8), tapped)
    references = [weakref.ref(feature) for feature in features.values()]
    assert num_hooks(network) == 0
    assert len(references) == len(tapped)
    del features
    gc.collect()
    assert all(reference() is None for reference in references)


def test_hooks_are_removed_when_the_forward_fails() -> None:
    network = tapped_resnet()
    with pytest.raises(RuntimeError):
        network(torch.randn(2, 5, 8, 8), (1, 2))
    assert num_hooks(network) == 0


def test_state_dict_keys_are_those_of_the_backbone() -> None:
    network = tapped_resnet()
    expected = [f"backbone.{key}" for key in network.backbone.state_dict()]
    assert list(network.state_dict()) == expected
    assert sum(1 for _ in network.parameters()) == sum(1 for _ in network.backbone.parameters())


def test_a_deep_copy_taps_its_own_stages() -> None:
    network = tapped_resnet()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.backbone.stages[0][0].bn2.bias.add_(1.0)
    images_BCHW = torch.randn(2, 3, 8, 8)
    first, second = network(images_BCHW, (1,))[1][1], twin(images_BCHW, (1,))[1][1]
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("name", "image_shape", "expected"),
    [
        ("resnet8", (1, 8, 8), [(8, 8, 8), (16, 4, 4), (32, 2, 2)]),
        ("resnet18", (1, 8, 8), [(8, 8, 8), (16, 4, 4), (32, 2, 2), (64, 1, 1)]),
        ("resnet50", (3, 28, 20), [(32, 28, 20), (64, 14, 10), (128, 7, 5), (256, 4, 3)]),
    ],
)
def test_stage_shapes(
    name: str, image_shape: tuple[int, int, int], expected: list[tuple[int, int, int]]
) -> None:
    network = tapped_resnet(name, in_channels=image_shape[0])
    assert network.stage_shapes(image_shape) == tuple(StageShape(*shape) for shape in expected)


def test_measuring_shapes_changes_nothing() -> None:
    network = tapped_resnet()
    network.backbone.stages[1].eval()
    modes = [module.training for module in network.modules()]
    buffers = [buffer.clone() for buffer in network.buffers()]
    random_state = torch.get_rng_state()
    network.backbone.stages[0].register_forward_hook(lambda *_: torch.rand(1) and None)
    network.stage_shapes((3, 8, 8))
    assert [module.training for module in network.modules()] == modes
    assert all(
        torch.equal(before, after)
        for before, after in zip(buffers, network.buffers(), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_measuring_shapes_builds_no_graph() -> None:
    network = tapped_resnet()
    seen: list[bool] = []
    network.backbone.stages[0].register_forward_hook(
        lambda *_: seen.append(torch.is_grad_enabled())
    )
    network.stage_shapes((3, 8, 8))
    assert seen == [False]


def test_shapes_of_a_double_precision_network() -> None:
    assert tapped_resnet().double().stage_shapes((3, 8, 8))[0] == StageShape(8, 8, 8)


@pytest.mark.parametrize("wrong", [0, 4, -1])
def test_an_unknown_stage_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"stages 1 to 3, received {wrong}"):
        tapped_resnet()(torch.randn(2, 3, 8, 8), (wrong,))


def test_stages_outside_of_the_backbone_are_refused() -> None:
    network = tapped_resnet()
    with pytest.raises(ValueError, match=r"not part of it: \[2\]"):
        TappedBackbone(network.backbone, [network.backbone.stages[0], nn.Identity()])
    with pytest.raises(ValueError, match="at least one"):
        TappedBackbone(network.backbone, [])


class Detour(nn.Module):
    """A backbone that never calls its stage, or calls it on flat vectors."""

    def __init__(self, *, flat: bool) -> None:
        super().__init__()
        self.flat = flat
        self.stage = nn.Linear(4, 4)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        flat_BC = images_BCHW.flatten(1)
        return self.stage(flat_BC) if self.flat else flat_BC


def test_a_stage_that_did_not_run_is_an_error() -> None:
    backbone = Detour(flat=False)
    with pytest.raises(RuntimeError, match=r"stages \[1\] took no part"):
        TappedBackbone(backbone, [backbone.stage])(torch.zeros(1, 1, 2, 2), (1,))


def test_a_stage_without_a_map_has_no_shape() -> None:
    backbone = Detour(flat=True)
    with pytest.raises(ValueError, match=r"stage 1 must put out a map \[B, C, H, W\]"):
        TappedBackbone(backbone, [backbone.stage]).stage_shapes((1, 2, 2))
