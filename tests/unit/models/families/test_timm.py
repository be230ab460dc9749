from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import network_info

from skdtune.catalogues.models import family_of, is_of_open_family, network_named, networks
from skdtune.describe.config import ModelConfig
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import spec_from_json
from skdtune.errors import DataError, InputError, SpecError
from skdtune.models.backbone import build_backbone, require_as_stored
from skdtune.models.description import describe_network
from skdtune.models.families.timm import TimmBackbone
from skdtune.models.network_file import package_that_offers, read_network_file, write_network

# Networks that timm has for its own tests; maps, maps channels last, tokens.
NAMES = ("timm/test_resnet", "timm/test_efficientnet", "timm/test_convnext", "timm/test_vit")
SIZE = (32, 48)
IMAGES_BCHW = torch.randn(3, 1, *SIZE, generator=torch.Generator().manual_seed(2))

every_network = pytest.mark.parametrize("name", NAMES)


def build(name: str, seed: int = 0) -> TimmBackbone:
    torch.manual_seed(seed)
    built = build_backbone(name, in_channels=1, image_size=SIZE, num_classes=7)
    assert isinstance(built, TimmBackbone)
    return built


@every_network
def test_the_logits_are_those_of_timm(name: str) -> None:
    plain = name.removeprefix("timm/")
    facts = timm.get_pretrained_cfg(plain)
    sized: dict[str, Any] = {"img_size": SIZE} if facts and facts.fixed_input_size else {}
    torch.manual_seed(0)
    theirs = timm.create_model(plain, num_classes=7, in_chans=1, **sized).eval()
    ours = build(name).eval()
    with torch.no_grad():
        outputs = ours(IMAGES_BCHW, tuple(range(1, ours.num_stages + 1)))
        assert torch.equal(outputs.logits_BK, theirs(IMAGES_BCHW))
        assert torch.equal(ours(IMAGES_BCHW).logits_BK, outputs.logits_BK)
        assert torch.equal(ours.classifier(outputs.pooled_BC), outputs.logits_BK)
    counts = [sum(p.numel() for p in one.parameters()) for one in (ours, theirs)]
    assert counts[0] == counts[1]


@every_network
def test_the_stages_are_those_that_it_is_described_with(name: str) -> None:
    network, built = network_named(name), build(name)
    assert family_of(name) == "timm"
    assert network.num_stages == built.num_stages <= 5
    described = describe_network(built, (1, *SIZE), has_maps=network.has_maps)
    with torch.no_grad():
        outputs = built(IMAGES_BCHW, (1, built.num_stages))
    assert list(outputs.stage_features) == [1, built.num_stages]
    for number, feature in outputs.stage_features.items():
        shape = described.stage_shapes[number - 1]
        assert shape.channels in feature.shape[1:]
        assert feature.ndim == (4 if network.has_maps else 3)
    assert network.has_maps == (name != "timm/test_vit")
    with pytest.raises(ValueError, match="not 9"):
        built(IMAGES_BCHW, (9,))


def test_of_twelve_blocks_five_are_stages_and_of_six_maps_the_last_five() -> None:
    tokens = network_named("timm/vit_tiny_patch16_224").stages
    assert tokens == ("blocks.1", "blocks.4", "blocks.6", "blocks.9", "blocks.11")
    maps = network_named("timm/vgg11_bn").stages
    assert (len(maps), maps[-1]) == (5, "features.28")


@every_network
def test_gradients_reach_all_parameters(name: str) -> None:
    built = build(name)
    outputs = built(IMAGES_BCHW, tuple(range(1, built.num_stages + 1)))
    outputs.logits_BK.square().sum().backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


@every_network
def test_the_weights_follow_from_the_seed_whoever_asked_for_the_stages(name: str) -> None:
    from skdtune.models.families import timm as family

    first = build(name, seed=5).state_dict()
    for cached in (family._stages, family._has_maps):
        cached.cache_clear()
    second = build(name, seed=5).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = build(name, seed=6).state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_network
def test_a_network_file_brings_it_back_and_names_the_package(name: str) -> None:
    network = build(name).eval()
    info = network_info(
        model=name,
        width=None,
        in_channels=1,
        height=SIZE[0],
        image_width=SIZE[1],
        package=package_that_offers(name),
        class_names=tuple("abcdefg"),
    )
    assert info.package == f"timm {timm.__version__}"
    built = read_network_file(write_network(info, network.state_dict())).build()
    with torch.no_grad():
        torch.testing.assert_close(built(IMAGES_BCHW), network(IMAGES_BCHW).logits_BK)
    lost = info.model_copy(update={"model": "timm/no_such_network"})
    with pytest.raises(DataError, match=r"it holds a 'timm/no_such_network': timm .* has no"):
        read_network_file(write_network(lost, network.state_dict()))


def test_buffers_that_timm_keeps_to_itself_are_in_the_state_dict() -> None:
    name = "timm/swin_tiny_patch4_window7_224"
    with torch.device("meta"):
        built = build_backbone(name, in_channels=3, image_size=(64, 64), num_classes=2)
    assert {buffer for buffer, _ in built.named_buffers()} <= built.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm/test_resnett", r"has no network 'test_resnett'; did you mean timm/test_resnet\?$"),
        ("timm/deit_tiny_distilled_patch16_224", "it ends in a tuple, not in one linear layer$"),
    ],
)
def test_what_cannot_be_taken_is_said_where_the_study_is_created(name: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as raised:
        ModelConfig(name=name)
    assert "\n" not in str(raised.value)


def test_images_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^timm/test_vit cannot take images of 8x8: ") as raised:
        build_backbone("timm/test_vit", in_channels=1, image_size=(8, 8), num_classes=2)
    assert "\n" not in str(raised.value)


@settings(max_examples=100)
@given(st.text(max_size=12))
def test_no_address_and_no_path_is_the_name_of_a_network(rest: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert is_of_open_family(f"timm/{rest}") == (bool(rest) and set(rest) <= allowed)
    assert not is_of_open_family(f"resnet/{rest}")


# A study of one

CHANGES = ["model.name=timm/test_resnet", "model.width=null"]


def test_a_study_keeps_the_stages_so_that_it_is_read_without_timm(tmp_path: Path) -> None:
    spec = load_spec("digits-drg-dsr", overrides=CHANGES)
    assert spec.model.stages == network_named("timm/test_resnet").stages
    assert spec.model.puts_out == "maps"
    assert spec.search["method.drg.stages"].examples()[-1] == "1+2+3+4"
    text = spec.to_json()
    assert spec_from_json(text) == spec
    (tmp_path / "timm.py").write_text("raise ModuleNotFoundError('no timm', name='timm')")
    (tmp_path / "spec.json").write_text(text)
    program = (
        "import sys; from skdtune.describe.spec import spec_from_json\n"
        "spec = spec_from_json(open(sys.argv[1]).read())\n"
        "print(spec.model.num_stages, spec.model.has_maps, spec.digest, 'torch' in sys.modules)"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    }
    command = [sys.executable, "-c", program, str(tmp_path / "spec.json")]
    read = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert read.stdout.split() == ["5", "True", spec.digest, "False"]
    refused = subprocess.run(
        [sys.executable, "-m", "skdtune", "create-study", "digits-drg", "--set", CHANGES[0]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr.endswith("pip install 'skdtune[timm]'\n")
    assert len(refused.stderr.splitlines()) == 1


def test_a_study_of_a_listed_network_says_nothing_of_stages() -> None:
    model = json.loads(load_spec("digits-drg-dsr").to_json())["spec"]["model"]
    assert not {"stages", "puts_out"} & model.keys()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["model.stages=[a, b]"], "those of resnet8 are known, and cannot be set"),
        ([*CHANGES, "model.stages=[a, a]"], "must be 1 to 5 different names"),
        ([*CHANGES, "model.stages=[a, b, c]"], "model.puts_out: must be there"),
        ([*CHANGES, "method.drg.stages=[5]"], "timm/test_resnet has 5 stages"),
        (["model.name=timm/test_resnet"], "has one width only, received 8"),
        (["model.name=resnet9"], "must be 'resnet8', 'resnet20'"),
        (["model.name=timm/../x"], "must be 'resnet8', 'resnet20'"),
        (
            ["search.model.name={type: choice, choices: [resnet8, timm/test_resnet]}"],
            r"search\.model\.name",
        ),
        (
            [*CHANGES, "search.model.name={type: choice, choices: [timm/test_resnet]}"],
            "a study keeps the stages of one network",
        ),
        (
            ["search.model.puts_out={type: choice, choices: [maps]}"],
            "cannot be searched",
        ),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(changes: list[str], expected: str) -> None:
    with pytest.raises(SpecError, match=expected):
        load_spec("digits-drg", overrides=changes)


def test_other_stages_than_where_the_study_was_created_are_refused() -> None:
    require_as_stored(ModelConfig(name="timm/test_resnet"))
    require_as_stored(ModelConfig(name=next(iter(networks()))))
    other = ModelConfig(name="timm/test_resnet", stages=("a", "b"), puts_out="maps")
    with pytest.raises(InputError, match="and had a, b where its study was created: install the"):
        require_as_stored(other)
