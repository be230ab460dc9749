from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from skdtune.models.backbone import build_backbone
from skdtune.models.description import StageShape, describe_network
from skdtune.models.heads.bifpn import BiFPN, Fusion, SeparableStack
from skdtune.models.kernels.native import Kernels

RESNET18 = tuple(StageShape(64 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4))
RESNET50 = tuple(StageShape(256 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4))


def maps(shapes: Sequence[StageShape], num_images: int = 3, seed: int = 0) -> list[Tensor]:
    """Maps as a backbone puts them out: a half of each is 0."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(num_images, s.channels, s.height, s.width, generator=generator).relu()
        for s in shapes
    ]


@pytest.mark.parametrize(
    ("shapes", "width", "depth", "expected"),
    [
        (RESNET18, 2, 2, 6_375_794),
        (RESNET18, 1, 1, 1_538_866),
        (RESNET50, 1, 1, 23_751_538),
        (RESNET50, 2, 2, 99_918_962),
    ],
)
def test_published_parameter_counts(
    shapes: tuple[StageShape, ...], width: int, depth: int, expected: int
) -> None:
    with torch.device("meta"):
        network = BiFPN(shapes, 100, width=width, depth=depth)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def conv(layers: nn.Sequential, feature_BCHW: Tensor) -> Tensor:
    """Convolutions and evaluated batch normalisation, by torch's functions alone."""
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            moments = (layer.running_mean, layer.running_var)
            feature_BCHW = F.batch_norm(feature_BCHW, *moments, layer.weight, layer.bias)
            feature_BCHW = feature_BCHW.relu()
        else:
            assert isinstance(layer, nn.Conv2d)
            padding, groups = layer.kernel_size[0] // 2, layer.groups
            feature_BCHW = F.conv2d(feature_BCHW, layer.weight, padding=padding, groups=groups)
    return feature_BCHW


def published_forward(network: BiFPN, features: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The network in the published order, for maps whose sizes halve."""
    modules = dict(network.named_modules())
    last = len(features) - 1

    def part(name: str, feature_BCHW: Tensor) -> Tensor:
        layers = modules[name]
        assert isinstance(layers, nn.Sequential)
        return conv(layers, feature_BCHW)

    def mean(name: str, inputs: list[Tensor]) -> Tensor:
        weights = [max(w, 0.0) for w in network.get_parameter(f"{name}.fusion.weight").tolist()]
        total = sum(weights) + 1e-6
        return torch.stack([w / total * x for w, x in zip(weights, inputs, strict=True)]).sum(0)

    down = {last: part("top", features[last])}
    for s in range(last - 1, -1, -1):
        name = f"top_down.{s}"
        doubled = down[s + 1].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        inputs = [part(f"{name}.lateral", features[s]), part(f"{name}.project", doubled)]
        down[s] = part(f"{name}.block", mean(name, inputs))
    refined = [down[0]]
    for s in range(1, last + 1):
        name = f"bottom_up.{s - 1}"
        halved = F.max_pool2d(F.pad(refined[-1], (0, 1, 0, 1)), 3, stride=2)
        inputs = [part(f"{name}.lateral", features[s])]
        inputs += [down[s]] if s < last else []
        inputs += [part(f"{name}.project", halved)]
        refined.append(part(f"{name}.block", mean(name, inputs)))
    logits_BK = refined[-1].mean(dim=(2, 3)) @ network.classifier.weight.T
    return refined, logits_BK + network.classifier.bias


@pytest.mark.parametrize("num_stages", [2, 3, 4])
@pytest.mark.parametrize(("width", "depth"), [(1, 1), (2, 1), (1, 3)])
def test_the_published_order_of_layers(num_stages: int, width: int, depth: int) -> None:
    shapes = [StageShape(4 + 2 * i, 24 // 2**i, 16 // 2**i) for i in range(num_stages)]
    network = BiFPN(shapes, 5, width=width, depth=depth)
    for name, parameter in network.named_parameters():
        if name.endswith("fusion.weight"):
            nn.init.uniform_(parameter, -0.2, 1)
    network(maps(shapes, seed=1))  # moves the statistics away from where they start
    network.eval()
    with torch.no_grad():
        refined, logits_BK = network(maps(shapes))
        expected, expected_BK = published_forward(network, maps(shapes))
    for received, wanted in zip(refined, expected, strict=True):
        torch.testing.assert_close(received, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits_BK, expected_BK, rtol=1e-4, atol=1e-5)


def test_projecting_before_enlarging_trains_the_same() -> None:
    small_BCHW = maps([StageShape(6, 4, 5)])[0]
    network = BiFPN([StageShape(4, 8, 10), StageShape(6, 4, 5)], 3, width=1, depth=1)
    projection = network.top_down[0].get_submodule("project")
    doubled_BCHW = F.interpolate(small_BCHW, scale_factor=2, mode="nearest")
    before_BCHW = F.interpolate(projection(small_BCHW), scale_factor=2, mode="nearest")
    torch.testing.assert_close(before_BCHW, projection(doubled_BCHW), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "image_shape"),
    [
        ("resnet8", (1, 8, 8)),
        ("resnet18", (3, 32, 32)),
        ("resnet18", (3, 28, 28)),
        ("resnet18", (3, 7, 7)),
        ("resnet20", (3, 9, 15)),
        ("resnet18", (3, 4, 4)),
        ("resnet50", (3, 8, 8)),
    ],
)
def test_on_the_backbones(name: str, image_shape: tuple[int, int, int]) -> None:
    channels, height, width = image_shape
    backbone = build_backbone(
        name, width=4, in_channels=channels, image_size=(height, width), num_classes=10
    )
    shapes = describe_network(backbone, image_shape).stage_shapes
    network = BiFPN(shapes, 10, width=2, depth=1)
    every_stage = tuple(range(1, len(shapes) + 1))
    features = backbone(torch.rand(3, *image_shape), every_stage).stage_features
    refined, logits_BK = network([features[number] for number in sorted(features)])
    assert [tuple(v.shape[1:]) for v in refined] == [
        (2 * shape.channels, shape.height, shape.width) for shape in shapes
    ]
    assert logits_BK.shape == (3, 10)
    (logits_BK.square().sum() + sum(v.square().sum() for v in refined)).backward()
    # The classifier of the backbone alone took no part.
    for parameter in (*network.parameters(), *backbone.stem.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


sizes = st.lists(st.tuples(st.integers(1, 11), st.integers(1, 11)), min_size=2, max_size=4)


@settings(max_examples=40, deadline=None)
@given(sizes=sizes)
def test_any_sizes(sizes: list[tuple[int, int]]) -> None:
    shapes = [StageShape(2 + i, height, width) for i, (height, width) in enumerate(sizes)]
    network = BiFPN(shapes, 3, width=1, depth=1)
    refined, logits_BK = network(maps(shapes))
    assert [tuple(v.shape) for v in refined] == [
        (3, shape.channels, shape.height, shape.width) for shape in shapes
    ]
    assert all(v.isfinite().all() and (v >= 0).all() for v in refined)
    assert logits_BK.isfinite().all()


def test_every_stage_reaches_the_logits() -> None:
    shapes = RESNET18[:3]
    network = BiFPN([StageShape(4, s.height, s.width) for s in shapes], 5, width=1, depth=1)
    features = maps([StageShape(4, s.height, s.width) for s in shapes])
    for feature_BCHW in features:
        feature_BCHW.requires_grad_()
    network(features)[1].square().sum().backward()
    assert all(f.grad is not None and f.grad.abs().sum() > 0 for f in features)


def test_fusion_starts_as_a_mean_and_drops_negative_weights() -> None:
    fusion = Fusion(3)
    inputs = [torch.full((2, 4, 3, 3), float(value)) for value in (1, 2, 6)]
    torch.testing.assert_close(fusion(inputs), torch.full((2, 4, 3, 3), 3.0))
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([1.0, -5.0, 3.0]))
    torch.testing.assert_close(fusion(inputs), torch.full((2, 4, 3, 3), 19 / 4))
    fusion(inputs).sum().backward()
    assert fusion.weight.grad is not None
    assert fusion.weight.grad[1] == 0
    assert fusion.weight.grad[2] > 0


def test_fusion_takes_exactly_its_maps() -> None:
    with pytest.raises(ValueError, match="argument"):
        Fusion(3)([torch.ones(1, 1, 1, 1)] * 2)


def test_depth_counts_separable_convolutions() -> None:
    block = SeparableStack(6, 4)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in block) == 4
    assert sum(p.numel() for p in block.parameters()) == 4 * (6 * 6 + 11 * 6)


@pytest.mark.parametrize("num_stages", [0, 1])
def test_a_single_stage_is_refused(num_stages: int) -> None:
    with pytest.raises(ValueError, match=f"at least 2 stages, received {num_stages}"):
        BiFPN(RESNET18[:num_stages], 10, width=1, depth=1)


def test_with_and_without_kernels_it_is_the_same_function(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [StageShape(16, 7, 9), StageShape(32, 4, 5), StageShape(48, 2, 3)]
    results = []
    for torch_alone in (False, True):
        if torch_alone:
            monkeypatch.setattr("skdtune.models.kernels.native.load_kernels", lambda: None)
        torch.manual_seed(5)
        network = BiFPN(shapes, 5, width=1, depth=2)
        features = [feature_BCHW.requires_grad_() for feature_BCHW in maps(shapes)]
        refined, logits_BK = network(features)
        (logits_BK.square().sum() + sum(v.square().sum() for v in refined)).backward()
        results.append([f.grad for f in features] + [p.grad for p in network.parameters()])
    for ours, theirs in zip(*results, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * scale)


def test_autocast_keeps_the_maps_in_bfloat16() -> None:
    shapes = [StageShape(32, 8, 8), StageShape(64, 4, 4), StageShape(64, 3, 3)]
    network = BiFPN(shapes, 5, width=1, depth=1)
    exact, exact_BK = network(maps(shapes))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined, logits_BK = network([feature.bfloat16() for feature in maps(shapes)])
    assert {v.dtype for v in refined} == {torch.bfloat16}
    torch.testing.assert_close(logits_BK.float(), exact_BK, rtol=0.1, atol=0.1)
    for received, wanted in zip(refined, exact, strict=True):
        assert (received.float() - wanted).abs().mean() < 0.05
