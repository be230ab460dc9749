from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import SMALLEST, network_info

from skdtune.catalogues.models import networks
from skdtune.errors import DataError
from skdtune.models.backbone import Backbone, build_backbone
from skdtune.models.network_file import (
    NetworkInfo,
    OutputCheck,
    read_network_file,
    write_network,
)


def make_info(**changes: Any) -> NetworkInfo:
    raw: dict[str, Any] = {
        "model": "resnet8",
        "width": 4,
        "height": 8,
        "image_width": 8,
        "class_names": tuple("abc"),
        "mean": (0.1,),
        "std": (0.3,),
        "data_fingerprint": "abc",
        "config": {"seed": 3, "optimizer": {"lr": 0.1}},
        "study": "tiny",
        "trial": 7,
        "environment": {"device": "cpu"},
    }
    return network_info(**{**raw, **changes})


def make_network(info: NetworkInfo) -> Backbone:
    network = build_backbone(
        info.model,
        width=info.width,
        in_channels=info.in_channels,
        image_size=(info.height, info.image_width),
        num_classes=info.num_classes,
        stem=info.stem,
    )
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network.eval()


def make_check(num_images: int = 2, num_classes: int = 3) -> OutputCheck:
    return OutputCheck(
        images_NCHW=torch.randint(0, 256, (num_images, 1, 8, 8), dtype=torch.uint8),
        logits_NK=torch.randn(num_images, num_classes),
        logits_float32_NK=torch.randn(num_images, num_classes),
    )


CONTENT = write_network(make_info(), make_network(make_info()).state_dict(), make_check())


def test_a_network_is_rebuilt_with_its_stem() -> None:
    """Files of the default one say nothing of it, so that earlier releases read them."""
    assert "stem" not in make_info(model="resnet18").model_dump()
    info = make_info(model="resnet18", stem="imagenet")
    network = make_network(info).to(memory_format=torch.channels_last)
    file = read_network_file(write_network(info, network.state_dict()))
    assert file.info.stem == "imagenet"
    images_BCHW = torch.randn(2, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(file.build()(images_BCHW), network(images_BCHW).logits_BK)


@pytest.mark.parametrize("name", SMALLEST)
def test_a_network_comes_back_as_it_was(name: str) -> None:
    info = make_info(model=name, width=networks()[name].width and 4)
    network = make_network(info).to(memory_format=torch.channels_last)
    check = make_check()

    before = torch.get_rng_state()
    file = read_network_file(write_network(info, network.state_dict(), check))
    built = file.build()

    assert torch.equal(before, torch.get_rng_state())
    assert file.info == info
    assert file.check is not None
    assert torch.equal(file.check.images_NCHW, check.images_NCHW)
    assert torch.equal(file.check.logits_NK, check.logits_NK)
    assert not built.training
    assert built.state_dict().keys() == network.state_dict().keys()
    images_BCHW = torch.randn(2, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(built(images_BCHW), network(images_BCHW).logits_BK)


def test_a_package_is_named_where_there_is_one() -> None:
    assert "package" not in PLAIN
    info = make_info(package="vggs 1.2")
    assert NetworkInfo.model_validate_json(info.model_dump_json()) == info


def test_networks_that_are_built_share_nothing() -> None:
    file = read_network_file(CONTENT)
    first, second = file.build(), file.build()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert second.backbone.classifier.weight.abs().sum() > 0
    assert file.state["classifier.weight"].abs().sum() > 0


def test_a_plain_state_dict_with_a_description_can_be_read(tmp_path: Path) -> None:
    network = make_network(make_info())
    path = tmp_path / "model.safetensors"
    path.write_bytes(write_network(make_info(), network.state_dict()))

    assert safetensors.torch.load_file(path).keys() == network.state_dict().keys()
    file = read_network_file(path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert file.check is None
    assert torch.equal(file.build().backbone.classifier.weight, network.classifier.weight)


def test_another_checksum_is_refused() -> None:
    with pytest.raises(DataError, match=r"its sha256 is [0-9a-f]{64}, not 0{64}"):
        read_network_file(CONTENT, "0" * 64)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_network_file(tmp_path / "none.safetensors")


def foreign(metadata: dict[str, str] | None, **tensors: torch.Tensor) -> bytes:
    return safetensors.torch.save(tensors or {"a": torch.zeros(2)}, metadata)


def described(info: Any, form: str = "skdtune network 1") -> bytes:
    return foreign({"skdtune": json.dumps({"format": form, "description": info})})


PLAIN = make_info().model_dump(mode="json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no safetensors file, or was cut off"),
        (b"PK\x03\x04 a zip file of torch.save", "no safetensors file, or was cut off"),
        (CONTENT[:-1], "damaged"),
        (CONTENT[:200], "cut off"),
        (foreign(None), "no network that skdtune wrote"),
        (foreign({"format": "pt"}), "no network that skdtune wrote"),
        (
            described({}, "skdtune network 2"),
            "its format is 'skdtune network 2', this version reads 'skdtune network 1'",
        ),
        (foreign({"skdtune": "["}), "no network that skdtune wrote"),
        (described("["), "description is wrong"),
        (described({**PLAIN, "model": "vgg"}), "it holds a 'vgg'; known are convnext_tiny"),
        (
            described({**PLAIN, "model": "vgg", "package": "vggs 1.2"}),
            "holds a 'vgg'; install the package vggs that it comes from .it was version 1.2",
        ),
        (described({**PLAIN, "package": "a\nb 1"}), "description is wrong"),
        (described({**PLAIN, "width": 2**70}), "its sizes are wrong"),
        (described({**PLAIN, "more": 1}), "description is wrong"),
        (described({**PLAIN, "accuracy": 2}), "description is wrong"),
        (described(PLAIN), "it is no resnet8: a has no place in it"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_network_file(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 8}, "is torch.float32 of"),
        ({"class_names": tuple("abcd")}, "expected torch.float32 of"),
        ({"model": "resnet20"}, "it is no resnet20: .* is missing"),
        ({"mean": (0.1, 0.2)}, "no mean and deviation for each of its channels"),
    ],
)
def test_another_architecture_than_it_names_is_refused(change: dict[str, Any], words: str) -> None:
    state = make_network(make_info()).state_dict()
    with pytest.raises(DataError, match=words):
        read_network_file(write_network(make_info(**change), state))


def test_checks_of_another_shape_are_refused() -> None:
    state = make_network(make_info()).state_dict()
    with pytest.raises(DataError, match=r"check\.logits is"):
        read_network_file(write_network(make_info(), state, make_check(num_classes=4)))
    with pytest.raises(DataError, match="incomplete"):
        read_network_file(write_network(make_info(), state, make_check(num_images=0)))


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 2**40), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_file_is_refused_or_read_but_nothing_else(
    position: int, flip: int, cut: bool
) -> None:
    # Half of the changes fall on the header, where they do the most.
    header = 8 + int.from_bytes(CONTENT[:8], "little")
    at = position % (header if position % 2 else len(CONTENT))
    damaged = bytearray(CONTENT)
    damaged[at] ^= flip
    content = CONTENT[:at] if cut else bytes(damaged)

    with pytest.raises(DataError, match="another file"):
        read_network_file(content, hashlib.sha256(CONTENT).hexdigest())
    # A flip among the weights cannot be seen without the checksum.
    with contextlib.suppress(DataError):
        read_network_file(content).build()
        assert not cut


def test_the_same_network_is_the_same_file() -> None:
    info = make_info()
    state = make_network(info).state_dict()
    assert len({write_network(info, state) for _ in range(20)}) == 1
