from __future__ import annotations

import pytest
import torch

from skdtune.describe.config import ModelConfig
from skdtune.errors import DeviceError
from skdtune.training.device import autocast, autocast_dtype, describe_device, resolve_device

CPU = torch.device("cpu")


def config(precision: str) -> ModelConfig:
    return ModelConfig.model_validate({"name": "resnet8", "precision": precision})


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)


@pytest.mark.parametrize("name", ["cpu", "cpu:0"])
def test_the_cpu_has_no_index(name: str) -> None:
    assert resolve_device(name) == torch.device("cpu")


@pytest.mark.parametrize("name", [None, "auto"])
def test_without_a_name_the_first_gpu_is_taken_if_there_is_one(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, 0)
    assert resolve_device(name) == CPU
    pretend_gpus(monkeypatch, 2)
    assert resolve_device(name) == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "unknown device 'gpu': this machine has cpu, cuda:0, cuda:1"),
        ("", "unknown device '': this machine has cpu, cuda:0, cuda:1"),
        ("cuda:x", "unknown device 'cuda:x': this machine has cpu, cuda:0, cuda:1"),
        ("meta", "device 'meta' is not supported: this machine has cpu, cuda:0, cuda:1"),
        ("cuda:2", "device 'cuda:2' is not there: this machine has cpu, cuda:0, cuda:1"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(DeviceError) as caught:
        resolve_device(name)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


def test_a_gpu_on_a_machine_without_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 0)
    with pytest.raises(DeviceError, match=r"'cuda' is not there: this machine has cpu$"):
        resolve_device("cuda")


def test_gpus_are_counted_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2)
    assert resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


def test_the_cpu_has_a_description() -> None:
    assert describe_device(CPU).strip()


def test_float32_never_autocasts() -> None:
    assert autocast_dtype(config("float32"), CPU) is None


def test_bfloat16_autocasts_wherever_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cpu(monkeypatch, avx512=False, amx=False)
    assert autocast_dtype(config("bfloat16"), CPU) is torch.bfloat16


def pretend_cpu(monkeypatch: pytest.MonkeyPatch, *, avx512: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(False, False, None), (True, False, torch.bfloat16), (False, True, torch.bfloat16)],
)
def test_auto_autocasts_on_a_cpu_with_bfloat16_instructions_only(
    avx512: bool, amx: bool, expected: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cpu(monkeypatch, avx512=avx512, amx=amx)
    assert autocast_dtype(config("auto"), CPU) is expected


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), None), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_auto_autocasts_on_a_gpu_from_capability_8(
    capability: tuple[int, int],
    expected: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert autocast_dtype(config("auto"), torch.device("cuda", 0)) is expected


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_autocast_decides_the_type_of_a_product(dtype: torch.dtype | None) -> None:
    matrix = torch.ones(2, 2)
    with autocast(dtype, CPU):
        product = matrix @ matrix
    assert product.dtype is (dtype or torch.float32)
