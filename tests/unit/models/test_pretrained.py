from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from network_cases import network_info
from torch import nn

from skdtune.describe.config import TrialConfig
from skdtune.describe.presets import load_spec
from skdtune.errors import InputError, SpecError
from skdtune.models.backbone import Backbone, build_backbone
from skdtune.models.network_file import write_network
from skdtune.models.pretrained import (
    Weights,
    load_weights,
    read_weights,
    weights_at_hand,
)

IMAGES_BCHW = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))


def build(name: str = "resnet18", width: int | None = None, num_classes: int = 10) -> Backbone:
    return build_backbone(
        name, width=width, in_channels=3, image_size=(16, 16), num_classes=num_classes
    )


def torchvision_network(num_classes: int = 10) -> nn.Module:
    """Build torchvision's ResNet-18 with the stem for small images."""
    network = torchvision.models.resnet18(weights=None, num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1)
    return network.eval()


def write(path: Path, state: dict[str, torch.Tensor]) -> str:
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
    return str(path)


def test_weights_of_torchvision_make_the_same_network(tmp_path: Path) -> None:
    theirs, ours = torchvision_network(), build().eval()
    load_weights(ours, read_weights(write(tmp_path / "w.safetensors", theirs.state_dict())), "x")
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES_BCHW).logits_BK, theirs(IMAGES_BCHW))


def test_where_the_order_is_known_no_name_is_needed() -> None:
    theirs, ours = torchvision_network(), build().eval()
    ours.names_elsewhere = ()
    state = {
        f"part{i}.{k.rpartition('.')[2]}": v
        for i, (k, v) in enumerate(theirs.state_dict().items())
    }
    weights = Weights(origin="x", state=state, sha256="", has_order=True)
    load_weights(ours, weights, "resnet18")
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES_BCHW).logits_BK, theirs(IMAGES_BCHW))
    unordered = Weights(origin="x", state=state, sha256="", has_order=False)
    with pytest.raises(
        InputError, match=r"^the weights x are none of resnet18: part0\.weight has"
    ):
        load_weights(build(), unordered, "resnet18")


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit"])
def test_weights_of_timm_fit_its_networks(name: str, tmp_path: Path) -> None:
    import timm

    theirs = timm.create_model(name.partition("/")[2], num_classes=7).eval()
    ours = build_backbone(name, in_channels=3, image_size=(160, 160), num_classes=7).eval()
    load_weights(ours, read_weights(write(tmp_path / "w.safetensors", theirs.state_dict())), name)
    images_BCHW = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(ours(images_BCHW).logits_BK, theirs(images_BCHW))


def test_a_classifier_of_other_classes_stays_as_it_was_drawn(tmp_path: Path) -> None:
    theirs, ours = torchvision_network(num_classes=1000), build(num_classes=10)
    before = ours.classifier.weight.clone()
    load_weights(ours, read_weights(write(tmp_path / "w.safetensors", theirs.state_dict())), "x")
    assert torch.equal(ours.classifier.weight, before)
    assert torch.equal(ours.state_dict()["stem.0.weight"], theirs.state_dict()["conv1.weight"])


def test_older_weights_have_no_counts_of_batches(tmp_path: Path) -> None:
    state = {k: v for k, v in build().state_dict().items() if "num_batches" not in k}
    ours = build()
    load_weights(ours, read_weights(write(tmp_path / "w.safetensors", state)), "resnet18")
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"name": "resnet34"},
            r"are none of resnet18: stages\.0\.2\.bn1\.bias has no place in it",
        ),
        (
            {"name": "resnet8", "width": 64},
            r"are none of resnet18: stages\.0\.1\.bn1\.bias is miss",
        ),
        ({"width": 32}, r"do not fit resnet18: stem\.0\.weight is \[32, 3, 3, 3\] there and \[64"),
    ],
)
def test_weights_of_another_network_are_refused_by_a_tensor(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    weights = read_weights(write(tmp_path / "w.safetensors", build(**changes).state_dict()))
    with pytest.raises(InputError, match=expected) as raised:
        load_weights(build(), weights, "resnet18")
    assert "\n" not in str(raised.value)


def test_the_stem_of_imagenet_is_refused_by_its_tensor(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    weights = read_weights(write(tmp_path / "w.safetensors", state))
    with pytest.raises(InputError, match=r"stem\.0\.weight is \[64, 3, 7, 7\] there and \[64, 3,"):
        load_weights(build(), weights, "resnet18")


def test_the_checksum_is_of_the_tensors_and_not_of_the_file(tmp_path: Path) -> None:
    state = build("resnet8", width=8).state_dict()
    info = network_info(model="resnet8", width=8, in_channels=3, height=16, image_width=16)
    file = tmp_path / "ours.safetensors"
    file.write_bytes(write_network(info, state))
    plain = read_weights(write(tmp_path / "plain.safetensors", state))
    ours = read_weights(str(file))
    assert plain.sha256 == ours.sha256
    assert (plain.info, ours.info) == (None, info)
    changed = {key: value.clone() for key, value in state.items()}
    changed["classifier.bias"][0] += 1e-6
    assert read_weights(write(tmp_path / "b.safetensors", changed)).sha256 != plain.sha256


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("nowhere.safetensors", r"no weights 'nowhere\.safetensors': name a safetensors file"),
        ("torchvision:ResNet18_Weights.V9", "torchvision has no weights 'ResNet18_Weights.V9'"),
        ("torchvision:resnet18", "torchvision has no weights 'resnet18'"),
        ("timm:resnt18", "timm .* has no network 'resnt18'"),
        ("timm:hf-hub:someone/something", "timm .* has no network"),
    ],
)
def test_weights_that_are_nowhere_are_one_line(origin: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as raised:
        read_weights(origin)
    assert "\n" not in str(raised.value)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(build("resnet8", width=4).state_dict(), file)
    with pytest.raises(InputError, match="weights are safetensors files"):
        read_weights(str(file))


# A training that begins with them


def config_with(sha256: str | None) -> TrialConfig:
    changes = [] if sha256 is None else [f"model.weights_sha256='{sha256}'"]
    return load_spec("digits-drg", overrides=changes).base_config()


def test_a_training_names_its_weights_and_gets_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        write(tmp_path / f"{seed}.safetensors", build("resnet8", width=8).state_dict())
        for seed in range(2)
    ]
    sha256 = read_weights(files[0]).sha256
    assert weights_at_hand(config_with(None)) is None
    with pytest.raises(InputError, match=f"begins with the weights of sha256 {sha256}: name them"):
        weights_at_hand(config_with(sha256))
    monkeypatch.setenv("SKDTUNE_WEIGHTS", files[1])
    with pytest.raises(InputError, match=f"and the training begins with {sha256}: name those"):
        weights_at_hand(config_with(sha256))
    with pytest.raises(InputError, match="create the study with --weights"):
        weights_at_hand(config_with(None))
    monkeypatch.setenv("SKDTUNE_WEIGHTS", files[0])
    assert weights_at_hand(config_with(sha256)) is read_weights(files[0])


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"trained_on": "train+val"}, "learned from the validation images too"),
        ({"config": {"data": {"name": "digits", "split_seed": 9}}}, "another split of the same"),
        ({"config": {"data": {"name": "cifar10"}}, "trained_on": "train+val"}, None),
    ],
)
def test_weights_that_know_what_the_training_is_judged_on_are_refused(
    facts: dict[str, Any], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = config_with(None).data.model_dump(mode="json")
    info = network_info(
        model="resnet8",
        width=8,
        in_channels=3,
        height=16,
        image_width=16,
        **{"config": {"data": data}, **facts},
    )
    file = tmp_path / "ours.safetensors"
    file.write_bytes(write_network(info, build("resnet8", width=8).state_dict()))
    monkeypatch.setenv("SKDTUNE_WEIGHTS", str(file))
    config = config_with(read_weights(str(file)).sha256)
    if expected is None:
        assert weights_at_hand(config) is not None
        return
    with pytest.raises(InputError, match=expected):
        weights_at_hand(config)


@pytest.mark.parametrize("path", ["model.name", "model.width", "model.weights_sha256"])
def test_what_decides_whether_weights_fit_cannot_be_searched(path: str) -> None:
    search = {
        "model.name": "{type: choice, choices: [resnet8, resnet20]}",
        "model.width": "{type: int, low: 8, high: 16}",
        "model.weights_sha256": f"{{type: choice, choices: ['{'a' * 64}']}}",
    }
    changes = [f"model.weights_sha256='{'a' * 64}'", f"search.{path}={search[path]}"]
    with pytest.raises(SpecError, match=rf"search\.{path}: cannot be searched"):
        load_spec("digits-drg", overrides=changes)
