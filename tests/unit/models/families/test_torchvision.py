"""The networks that torchvision has, too: its function, its weights, its number of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.models as theirs
from torch import nn

from skdtune.models.backbone import build_backbone
from skdtune.models.layers.batch_norm_act import BatchNormAct2d
from skdtune.models.layers.replacing import with_our_layers

#: Ours, torchvision's, its parameters with 1,000 classes as torchvision publishes them, and a side
#: that is large enough for it.
NETWORKS: dict[str, tuple[Callable[..., nn.Module], int, int]] = {
    "resnet18": (theirs.resnet18, 11_689_512, 64),
    "resnet50": (theirs.resnet50, 25_557_032, 64),
    "resnext50": (theirs.resnext50_32x4d, 25_028_904, 64),
    "wide_resnet50": (theirs.wide_resnet50_2, 68_883_240, 64),
    "densenet121": (theirs.densenet121, 7_978_856, 64),
    "mobilenet_v2": (theirs.mobilenet_v2, 3_504_872, 64),
    "mobilenet_v3_small": (theirs.mobilenet_v3_small, 2_542_856, 64),
    "mobilenet_v3_large": (theirs.mobilenet_v3_large, 5_483_032, 64),
    "efficientnet_b0": (theirs.efficientnet_b0, 5_288_548, 64),
    "shufflenet_v2": (theirs.shufflenet_v2_x1_0, 2_278_604, 64),
    "convnext_tiny": (theirs.convnext_tiny, 28_589_128, 64),
    "vit_tiny": (lambda: theirs.VisionTransformer(224, 16, 12, 3, 192, 768), 5_717_416, 224),
}
#: Those that take seconds to draw.
LARGE: dict[str, tuple[Callable[..., nn.Module], int, int]] = {
    "resnet34": (theirs.resnet34, 21_797_672, 64),
    "resnet101": (theirs.resnet101, 44_549_160, 64),
    "resnet152": (theirs.resnet152, 60_192_808, 64),
    "vgg16_bn": (theirs.vgg16_bn, 138_365_992, 224),
    "vgg19_bn": (theirs.vgg19_bn, 143_678_248, 224),
}
HERE = {**NETWORKS, **LARGE}


def ours(name: str, side: int, num_classes: int = 1000) -> nn.Module:
    return build_backbone(
        name,
        in_channels=3,
        image_size=(side, side),
        num_classes=num_classes,
        stem="imagenet" if name != "vit_tiny" else "default",
    )


@pytest.mark.parametrize("name", HERE)
def test_the_parameters_are_as_many_as_published(name: str) -> None:
    with torch.device("meta"):
        network = ours(name, HERE[name][2])
    assert sum(parameter.numel() for parameter in network.parameters()) == HERE[name][1]


@pytest.mark.parametrize(
    "name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.full) for name in LARGE)]
)
def test_with_its_weights_it_is_the_same_function(name: str) -> None:
    build, _, side = HERE[name]
    reference: Any = build().train()
    images_BCHW = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    # Logits that vanish would agree with anything: statistics of these images, no zeros.
    last = [module for module in reference.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        reference(images_BCHW)
    reference.eval()
    network = ours(name, side).eval()
    # In the same order: this is how published weights are read.
    state = zip(network.state_dict(), reference.state_dict().values(), strict=True)
    network.load_state_dict(dict(state))
    with torch.no_grad():
        expected_BK = reference(images_BCHW)
        received_BK = network(images_BCHW).logits_BK
    assert expected_BK.std() > 1e-3
    torch.testing.assert_close(
        received_BK, expected_BK, rtol=1e-4, atol=float(1e-5 * expected_BK.abs().max())
    )


def test_the_wide_network_has_the_published_parameters() -> None:
    with torch.device("meta"):
        network = build_backbone(
            "wide_resnet28", in_channels=3, image_size=(32, 32), num_classes=10
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == 36_479_194


def test_what_follows_a_normalisation_in_a_chain_is_taken_over() -> None:
    chain = nn.Sequential(nn.BatchNorm2d(8, eps=0.25, momentum=0.5), nn.ReLU(), nn.BatchNorm2d(8))
    weight = chain[0].weight
    replaced: Any = with_our_layers(chain)
    first, nothing, second = replaced
    assert isinstance(first, BatchNormAct2d)
    assert (first.relu, first.eps, first.momentum) == (True, 0.25, 0.5)
    assert first.weight is weight
    assert isinstance(nothing, nn.Identity)
    assert not second.relu


def test_elsewhere_relu_stays() -> None:
    block: Any = with_our_layers(theirs.resnet18().layer1[0])
    assert isinstance(block.bn1, BatchNormAct2d)
    assert not block.bn1.relu
    assert isinstance(block.relu, nn.ReLU)
