from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from network_cases import network_info

from skdtune.data.batches import DeviceImages
from skdtune.errors import DataError, SkdtuneError
from skdtune.models.network_file import NetworkFile, read_network_file
from skdtune.networks.network_artifact import (
    check_outputs,
    outputs,
    pack_network,
    read_artifact,
    remove_artifact,
    store_artifact,
)
from skdtune.training.files import write_file
from skdtune.training.trainer import Trainer

Digits = tuple[DeviceImages, DeviceImages]


def pack(trainer: Trainer, images: DeviceImages) -> tuple[bytes, NetworkFile]:
    info = network_info(
        model="resnet8",
        width=4,
        height=8,
        image_width=8,
        mean=tuple(images.mean_C.tolist()),
        std=tuple(images.std_C.tolist()),
        config=trainer.config.model_dump(mode="json"),
        precision="bfloat16" if trainer.dtype is torch.bfloat16 else "float32",
        environment={"device": "cpu (x86_64)"},
    )
    content = pack_network(trainer.network, images, trainer.dtype, info)
    return content, read_network_file(content)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_was_trained_is_what_is_read_back(
    precision: str,
    digits: Digits,
    make_trainer: Callable[..., Trainer],
    make_recorder: Callable[..., Any],
) -> None:
    trainer = make_trainer(model__precision=precision, method__drg={"weight": 0.2})
    trainer.run(make_recorder())
    _, file = pack(trainer, digits[1])

    assert trainer.terms.state_dict()
    assert file.state.keys() == trainer.network.state_dict().keys()
    agreement = check_outputs(file)
    assert (agreement.difference, agreement.difference_float32) == (0, 0)
    assert agreement.describe() == "equal, bit for bit, on 8 images"
    built, val = file.build(), digits[1]
    rows_N = torch.arange(len(val))
    found_NK, expected_NK = (
        outputs(network.eval(), val.raw(rows_N), val.mean_C, val.std_C, trainer.dtype)
        for network in (built.backbone, trainer.network)
    )
    assert torch.equal(found_NK, expected_NK)


def test_fewer_images_than_usual_are_enough(
    digits: Digits, make_trainer: Callable[..., Trainer]
) -> None:
    val = digits[1]
    few = copy.copy(val)
    few.images_NCHW, few.labels_N = val.images_NCHW[:2], val.labels_N[:2]
    _, file = pack(make_trainer(), few)
    assert check_outputs(file).num_images == 2


@pytest.mark.parametrize("name", ["logits_NK", "logits_float32_NK"])
@pytest.mark.parametrize("change", [1e-3, float("nan")])
def test_other_outputs_are_refused(
    name: str, change: float, digits: Digits, make_trainer: Callable[..., Trainer]
) -> None:
    _, file = pack(make_trainer(), digits[1])
    assert file.check is not None
    other = getattr(file.check, name).clone()
    other[0, 0] += change * other.abs().max()
    changed = dataclasses.replace(file.check, **{name: other})
    with pytest.raises(DataError, match="not those of the network that was evaluated"):
        check_outputs(dataclasses.replace(file, check=changed))
    with pytest.raises(DataError, match="holds no outputs"):
        check_outputs(dataclasses.replace(file, check=None))


def test_rounding_of_another_device_is_no_other_network(
    digits: Digits, make_trainer: Callable[..., Trainer]
) -> None:
    _, file = pack(make_trainer(model__precision="bfloat16"), digits[1])
    assert file.check is not None
    other = dataclasses.replace(file.check, logits_NK=file.check.logits_NK * 1.01)
    described = check_outputs(dataclasses.replace(file, check=other)).describe()
    assert described.startswith("equal on 8 images within")
    assert described.endswith("in bfloat16, and within 0.0e+00 in float32")


# The store


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_an_artifact_is_read_as_it_was_stored(kind: str, tmp_path: Path) -> None:
    url = str(tmp_path / "not there yet") if kind == "folder" else "memory://kept-networks"
    first, second = store_artifact(url, b"one"), store_artifact(url, b"two")
    assert first.artifact_id != second.artifact_id
    assert (first.num_bytes, read_artifact(url, first.artifact_id)) == (3, b"one")
    remove_artifact(url, first.artifact_id)
    remove_artifact(url, first.artifact_id)
    with pytest.raises(SkdtuneError, match="cannot be read"):
        read_artifact(url, first.artifact_id)
    assert read_artifact(url, second.artifact_id) == b"two"


@pytest.mark.parametrize("artifact_id", ["../secret", "", "/etc/passwd", "a" * 31 + "/"])
def test_a_name_cannot_lead_out_of_the_store(artifact_id: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(DataError, match="no name of an artifact"):
        read_artifact(str(tmp_path / "store"), artifact_id)


def test_a_store_that_cannot_be_written_is_named_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SkdtuneError, match="file/below cannot be written: Not a directory"):
        store_artifact(str(tmp_path / "file" / "below"), b"one")
    with pytest.raises(SkdtuneError, match=r"no-such://\*\*\*@host/") as caught:
        store_artifact("no-such://me:secret@host/", b"one")
    assert "secret" not in str(caught.value).replace("no-such", "")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SkdtuneError, match="cannot be written: No space left on device"):
        store_artifact(str(tmp_path / "store"), b"one")
    assert list((tmp_path / "store").iterdir()) == []


def test_write_file_replaces_a_file_as_a_whole(tmp_path: Path) -> None:
    files = fsspec.filesystem("file")
    (tmp_path / "store").mkdir()
    for content in (b"a longer content", b"short"):
        write_file(files, str(tmp_path / "store"), "name", content)
    assert [path.read_bytes() for path in (tmp_path / "store").iterdir()] == [b"short"]
