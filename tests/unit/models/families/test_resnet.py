from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from skdtune.models.backbone import StagedBackbone, build_backbone
from skdtune.models.kernels.native import Kernels
from skdtune.models.layers.batch_norm_act import BatchNormAct2d


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def resnet(
    name: str, width: int | None = None, in_channels: int = 3, num_classes: int = 10
) -> StagedBackbone:
    network = build_backbone(
        name, width=width, in_channels=in_channels, image_size=(32, 32), num_classes=num_classes
    )
    assert isinstance(network, StagedBackbone)
    return network


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet18", 11_220_132), ("resnet50", 23_705_252), ("resnet34", 21_328_292)],
)
def test_parameter_counts_for_cifar100(name: str, expected: int) -> None:
    with torch.device("meta"):
        backbone = resnet(name, num_classes=100)
    assert num_parameters(backbone) == expected


@pytest.mark.parametrize(
    ("name", "width", "shape"),
    [
        ("resnet8", 8, (1, 8, 8)),
        ("resnet8", 16, (1, 8, 8)),
        ("resnet8", None, (3, 32, 32)),
        ("resnet20", 8, (3, 64, 64)),
        ("resnet20", None, (1, 8, 8)),
        ("resnet18", 8, (1, 8, 8)),
        ("resnet18", 8, (3, 33, 47)),
        ("resnet50", 4, (3, 32, 32)),
    ],
)
def test_forward_and_gradients(name: str, width: int | None, shape: tuple[int, int, int]) -> None:
    backbone = resnet(name, width, in_channels=shape[0], num_classes=7)
    logits_BK = backbone(torch.randn(4, *shape)).logits_BK
    logits_BK.square().sum().backward()
    assert logits_BK.shape == (4, 7)
    for parameter in backbone.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_width_sets_the_channels_of_the_first_stage() -> None:
    backbone = resnet("resnet50", width=8, in_channels=1, num_classes=3)
    assert backbone.stem[0].out_channels == 8
    assert backbone.stages[0](torch.zeros(2, 8, 4, 4)).shape == (2, 32, 4, 4)
    assert backbone.classifier.in_features == 8 * 8 * 4


def test_small_networks_project_where_the_shape_changes() -> None:
    backbone = resnet("resnet8")
    shortcuts = [stage[0].downsample for stage in backbone.stages]
    assert shortcuts[0] is None
    assert [type(layer) for layer in shortcuts[1]] == [nn.Conv2d, BatchNormAct2d]
    assert not shortcuts[1][1].relu
    assert shortcuts[1][0].kernel_size == (1, 1)


def test_weights_start_as_in_torchvision() -> None:
    backbone = resnet("resnet18")
    weight = backbone.stages[3][0].conv1.weight  # 256 to 512 channels
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert bool((backbone.stages[3][1].bn2.weight == 1).all())


def test_same_seed_same_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(resnet("resnet8").state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_blocks_are_those_of_torchvision(name: str) -> None:
    reference = getattr(torchvision.models, name)(num_classes=10).eval()
    backbone = resnet(name).eval()
    for number, stage in enumerate(backbone.stages, 1):
        theirs = getattr(reference, f"layer{number}")
        theirs.load_state_dict(stage.state_dict())
        channels = next(theirs.parameters()).shape[1]
        feature_BCHW = torch.rand(2, channels, 8, 8)
        torch.testing.assert_close(stage(feature_BCHW), theirs(feature_BCHW))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_with_and_without_kernels_it_is_the_same_function(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None
) -> None:
    results = []
    for torch_alone in (False, True):
        if torch_alone:
            monkeypatch.setattr("skdtune.models.kernels.native.load_kernels", lambda: None)
        torch.manual_seed(1)
        backbone = resnet("resnet8")
        backbone.to(memory_format=torch.channels_last)
        images_BCHW = torch.randn(16, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            logits_BK = backbone(images_BCHW).logits_BK.float()
        logits_BK.square().mean().backward()
        buffers = [buffer for buffer in backbone.buffers() if buffer.is_floating_point()]
        results.append([logits_BK.detach(), *buffers, *(p.grad for p in backbone.parameters())])
    allowed = 1e-4 if dtype is None else 0.2
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() <= allowed * theirs.norm() + 1e-6
