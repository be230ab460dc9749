from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skdtune.models.backbone import build_backbone
from skdtune.models.description import FeatureShape, StageShape, describe_network
from skdtune.models.heads.auxiliary import (
    AttentionGate,
    AuxiliaryClassifier,
    SepConv,
    TokenClassifier,
    auxiliary_classifiers,
    narrowed,
    stage_key,
)
from skdtune.models.kernels.native import Kernels
from skdtune.models.layers.batch_norm_act import BatchNormAct2d
from skdtune.models.layers.convolution import PointwiseConv2d
from skdtune.models.layers.depthwise import DepthwiseConv2d

RESNET18 = tuple(StageShape(64 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4))
RESNET50 = tuple(StageShape(256 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4))


def shapes_of(name: str, width: int, image_shape: tuple[int, int, int]) -> tuple[StageShape, ...]:
    channels, *size = image_shape
    backbone = build_backbone(
        name, width=width, in_channels=channels, image_size=tuple(size), num_classes=10
    )
    return describe_network(backbone, image_shape).stage_shapes


@pytest.mark.parametrize(
    ("shapes", "stage", "expected"),
    [
        (RESNET18, 1, 329_828),
        (RESNET18, 2, 342_116),
        (RESNET18, 3, 391_268),
        (RESNET50, 1, 4_513_892),
        (RESNET50, 2, 4_710_500),
        (RESNET50, 3, 5_496_932),
    ],
)
def test_published_parameter_counts(
    shapes: tuple[StageShape, ...], stage: int, expected: int
) -> None:
    with torch.device("meta"):
        head = AuxiliaryClassifier(shapes, stage, 100)
    assert sum(parameter.numel() for parameter in head.parameters()) == expected


def test_shapes_of_the_table_are_those_of_the_backbones() -> None:
    assert shapes_of("resnet18", 64, (3, 32, 32)) == RESNET18


@pytest.mark.parametrize("stage", [0, 4, 5])
def test_the_last_stage_and_unknown_ones_are_refused(stage: int) -> None:
    with pytest.raises(ValueError, match=f"from 1 to 3 .* received {stage}"):
        AuxiliaryClassifier(RESNET18, stage, 100)


def test_layers_of_a_separable_convolution() -> None:
    block = SepConv(4, 6, 2)
    kinds = [DepthwiseConv2d, PointwiseConv2d, BatchNormAct2d] * 2
    assert [type(layer) for layer in block] == kinds
    assert all(layer.relu for layer in block if isinstance(layer, BatchNormAct2d))
    described = [
        (
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size[0],
            layer.stride[0],
            layer.groups,
        )
        for layer in block
        if isinstance(layer, nn.Conv2d)
    ]
    assert described == [(4, 4, 3, 2, 4), (4, 4, 1, 1, 1), (4, 4, 3, 1, 4), (4, 6, 1, 1, 1)]
    assert all(layer.bias is None for layer in block if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize(
    ("name", "image_shape"),
    [
        ("resnet8", (1, 8, 8)),
        ("resnet18", (1, 8, 8)),
        ("resnet18", (3, 32, 32)),
        ("resnet18", (3, 64, 64)),
        ("resnet18", (3, 28, 28)),
        ("resnet18", (3, 7, 7)),
        ("resnet20", (3, 9, 15)),
        ("resnet18", (3, 4, 4)),
    ],
)
@pytest.mark.parametrize("align_corners", [False, True])
def test_any_image_size(name: str, image_shape: tuple[int, int, int], align_corners: bool) -> None:
    shapes = shapes_of(name, 4, image_shape)
    for stage in range(1, len(shapes)):
        head = AuxiliaryClassifier(shapes, stage, 5, align_corners=align_corners)
        shape = shapes[stage - 1]
        feature_BCHW = torch.rand(3, shape.channels, shape.height, shape.width)
        logits_BK = head(feature_BCHW)
        logits_BK.square().sum().backward()
        assert logits_BK.shape == (3, 5)
        assert logits_BK.isfinite().all()
        assert all(parameter.grad is not None for parameter in head.parameters())


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 19), width=st.integers(1, 19), num_stages=st.integers(2, 4))
def test_any_map_size(height: int, width: int, num_stages: int) -> None:
    shapes = [StageShape(2 + i, -(-height // 2**i), -(-width // 2**i)) for i in range(num_stages)]
    head = AuxiliaryClassifier(shapes, 1, 3)
    feature_BCHW = torch.rand(2, 2, height, width)
    assert head.gate(feature_BCHW).shape == feature_BCHW.shape
    trunk_BCHW = head.trunk(feature_BCHW)
    assert trunk_BCHW.shape[1] == shapes[-1].channels
    assert head(feature_BCHW).shape == (2, 3)


@pytest.mark.parametrize("side", [32, 28, 7, 64])
def test_the_trunk_follows_the_backbone(side: int) -> None:
    shapes = shapes_of("resnet18", 4, (3, side, side))
    for stage in (1, 2, 3):
        head = AuxiliaryClassifier(shapes, stage, 5)
        shape, last = shapes[stage - 1], shapes[-1]
        trunk_BCHW = head.trunk(torch.rand(2, shape.channels, shape.height, shape.width))
        assert trunk_BCHW.shape[1:] == (last.channels, last.height, last.width)


def test_a_map_that_keeps_its_size_is_not_halved() -> None:
    shapes = (StageShape(2, 8, 8), StageShape(3, 8, 8), StageShape(4, 4, 4))
    head = AuxiliaryClassifier(shapes, 1, 3)
    assert [block[0].stride for block in head.trunk] == [(1, 1), (2, 2)]


@pytest.mark.parametrize(("height", "width", "stride"), [(1, 6, 1), (6, 1, 1), (2, 2, 2)])
def test_the_gate_halves_only_what_can_be_halved(height: int, width: int, stride: int) -> None:
    gate = AttentionGate(StageShape(3, height, width), align_corners=False)
    assert gate.block[0].stride == (stride, stride)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 1e4), seed=st.integers(0, 1000))
def test_the_gate_damps_and_never_closes(scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    gate = AttentionGate(StageShape(3, 5, 6), align_corners=False)
    feature_BCHW = torch.randn(2, 3, 5, 6) * scale
    damped_BCHW = gate(feature_BCHW)
    assert bool((damped_BCHW.abs() >= 0.5 * feature_BCHW.abs()).all())
    assert bool((damped_BCHW.abs() <= feature_BCHW.abs()).all())
    assert bool((damped_BCHW.sign() == feature_BCHW.sign()).all())


def test_the_gate_multiplies_the_feature() -> None:
    head = AuxiliaryClassifier(RESNET18[2:], 1, 10).eval()
    nn.init.zeros_(head.gate.norm.weight)
    feature_BCHW = torch.rand(2, 256, 8, 8)
    expected_BK = head.classifier(head.trunk(0.5 * feature_BCHW).mean(dim=(2, 3)))
    torch.testing.assert_close(head(feature_BCHW), expected_BK)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_gate_equals_the_published_one_on_even_maps(align_corners: bool) -> None:
    gate = AttentionGate(StageShape(4, 6, 8), align_corners=align_corners).eval()
    feature_BCHW = torch.rand(2, 4, 6, 8)
    doubled_BCHW = F.interpolate(
        gate.norm(gate.block(feature_BCHW)),
        scale_factor=2,
        mode="bilinear",
        align_corners=align_corners,
    )
    assert torch.equal(gate(feature_BCHW), doubled_BCHW.sigmoid() * feature_BCHW)


def test_one_classifier_for_each_stage() -> None:
    with torch.device("meta"):
        heads = auxiliary_classifiers(RESNET18, (1, 3), 100, align_corners=False)
    assert list(heads) == ["stage1", "stage3"]
    assert heads["stage3"].classifier.in_features == 512


@pytest.mark.parametrize(
    ("align_corners", "expected"),
    [(False, [False] * 3), (True, [True] * 3), ("published", [False, True, False])],
)
def test_align_corners(align_corners: Any, expected: list[bool]) -> None:
    with torch.device("meta"):
        heads = auxiliary_classifiers(RESNET18, (1, 2, 3), 100, align_corners)
    assert [head.gate.align_corners for head in heads.values()] == expected


def test_in_autocast_it_computes_in_bfloat16(kernels: Kernels) -> None:
    head = AuxiliaryClassifier(RESNET18[2:], 1, 10).eval()
    feature_BCHW = torch.rand(2, 256, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        logits_BK = head(feature_BCHW.bfloat16())
    assert logits_BK.dtype == torch.bfloat16
    torch.testing.assert_close(logits_BK.float(), head(feature_BCHW), rtol=0.05, atol=0.02)


@pytest.mark.usefixtures("torch_alone")
def test_without_kernels_it_computes_in_the_precision_of_its_weights() -> None:
    head = AuxiliaryClassifier(RESNET18[2:], 1, 10).eval()
    feature_BCHW = torch.rand(2, 256, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits_BK = head(feature_BCHW)
    assert logits_BK.dtype == torch.float32
    assert torch.equal(logits_BK, head(feature_BCHW.float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_features_are_what_the_linear_layer_reads(dtype: torch.dtype) -> None:
    head = AuxiliaryClassifier(RESNET18[1:], 1, 10).eval()
    feature_BCHW = torch.rand(2, 128, 16, 16).to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
        pooled_BC, logits_BK = head.features_and_logits(feature_BCHW)
        assert torch.equal(logits_BK, head(feature_BCHW))
        assert torch.equal(logits_BK, head.classifier(pooled_BC).to(logits_BK.dtype))
    assert pooled_BC.shape == (2, 512)


def test_float64_stays_float64() -> None:
    head = AuxiliaryClassifier(RESNET18[2:], 1, 10).double()
    assert head(torch.rand(2, 256, 8, 8).bfloat16()).dtype == torch.float64


@pytest.mark.parametrize("align_corners", [False, True])
def test_with_and_without_kernels_it_is_the_same_function(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch, align_corners: bool
) -> None:
    shapes = (StageShape(16, 7, 9), StageShape(32, 4, 5), StageShape(48, 2, 3))
    results = []
    for torch_alone in (False, True):
        if torch_alone:
            monkeypatch.setattr("skdtune.models.kernels.native.load_kernels", lambda: None)
        torch.manual_seed(5)
        head = AuxiliaryClassifier(shapes, 1, 5, align_corners=align_corners)
        feature_BCHW = torch.randn(4, 16, 7, 9, requires_grad=True)
        head(feature_BCHW).square().sum().backward()
        results.append([feature_BCHW.grad, *(p.grad for p in head.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


# Stages without maps

TOKENS = (FeatureShape((16, 8)), FeatureShape((4, 12)), FeatureShape((20,)))


@pytest.mark.parametrize("stage", [1, 2])
def test_tokens_get_a_head_of_their_own(stage: int) -> None:
    heads = auxiliary_classifiers(TOKENS, (stage,), 5, align_corners="published")
    head = heads[stage_key(stage)]
    assert isinstance(head, TokenClassifier)
    feature_BTC = torch.randn(3, *TOKENS[stage - 1].sizes)
    pooled_BC, logits_BK = head.features_and_logits(feature_BTC)
    expected_BC = head.hidden(feature_BTC.mean(dim=1)).relu()
    assert torch.equal(pooled_BC, expected_BC)
    assert torch.equal(head(feature_BTC), head.classifier(expected_BC))
    assert (pooled_BC.shape, logits_BK.shape) == ((3, 20), (3, 5))


def test_a_head_on_vectors_takes_them_as_they_are() -> None:
    head = TokenClassifier([FeatureShape((8,)), FeatureShape((20,))], 1, 5)
    feature_BC = torch.randn(3, 8)
    assert torch.equal(head(feature_BC), head.classifier(head.hidden(feature_BC).relu()))


@pytest.mark.parametrize("stage", [0, 3])
def test_a_head_on_tokens_needs_an_inner_stage(stage: int) -> None:
    with pytest.raises(ValueError, match=f"a stage from 1 to 2 .*, received {stage}"):
        TokenClassifier(TOKENS, stage, 5)


# Narrowed


@settings(max_examples=200, deadline=None)
@given(channels=st.integers(1, 4096), width=st.floats(0, 1, exclude_min=True))
def test_a_share_of_channels_fills_vectors_where_the_whole_does(
    channels: int, width: float
) -> None:
    share = narrowed(channels, width)
    step = 1 if channels % 16 else 16
    assert 1 <= share <= channels
    assert share % step == 0
    assert abs(share - width * channels) <= max(step / 2, step - width * channels)
    assert narrowed(channels, 1.0) == channels


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("width", [0.5, 0.25])
def test_parameters_of_a_narrowed_classifier(stage: int, width: float) -> None:
    with torch.device("meta"):
        head = AuxiliaryClassifier(RESNET50, stage, 100, width=width)
    published = [shape.channels for shape in RESNET50[stage - 1 :]]
    path = [*(round(width * c) for c in published[:-1]), published[-1]]
    own = path[0]
    expected = published[0] * own + 2 * own + 2 * own**2 + 24 * own + path[-1] * 100 + 100
    for a, b in pairwise(path):
        expected += a * a + a * b + 20 * a + 2 * b
    assert sum(parameter.numel() for parameter in head.parameters()) == expected


@pytest.mark.parametrize("shapes", [RESNET18, TOKENS])
def test_the_published_width_changes_nothing(shapes: Any) -> None:
    built = []
    for widths in ((), (1.0,)):
        torch.manual_seed(3)
        built.append(auxiliary_classifiers(shapes, (1, 2), 5, False, *widths).state_dict())
    assert built[0].keys() == built[1].keys()
    assert not any("narrow" in name for name in built[0])
    assert all(torch.equal(built[0][name], built[1][name]) for name in built[0])


@pytest.mark.parametrize("shapes", [RESNET18, TOKENS])
def test_a_narrowed_classifier_hands_out_features_of_the_last_stage(shapes: Any) -> None:
    head = auxiliary_classifiers(shapes, (1,), 5, False, 0.25)["stage1"]
    feature = torch.randn(3, *(shapes[0].sizes if shapes is TOKENS else (64, 32, 32)))
    pooled_BC, logits_BK = head.features_and_logits(feature)
    assert pooled_BC.shape == (3, shapes[-1].channels)
    logits_BK.square().sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_a_narrowed_classifier_computes_the_same_with_and_without_kernels(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = AuxiliaryClassifier(RESNET18[2:], 1, 10, width=0.25)
    assert head.gate.block[0].in_channels == 64
    feature_BCHW = torch.rand(4, 256, 8, 8)
    ours_BK = head(feature_BCHW)
    monkeypatch.setattr("skdtune.models.kernels.native.load_kernels", lambda: None)
    torch.testing.assert_close(head(feature_BCHW), ours_BK, rtol=1e-3, atol=1e-4)
