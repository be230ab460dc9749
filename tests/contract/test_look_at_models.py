"""``skdtune models``: the catalogue with what its networks cost, and one of them in full."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from exit_codes import exit_code

from skdtune.catalogues.models import networks
from skdtune.cli.main import cli


@pytest.fixture
def run() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(cli, ["models", *arguments])


def test_every_network_is_listed(run: Callable[..., Result]) -> None:
    rows = json.loads(run("--json", "--image-size", "32").stdout)
    assert [row["name"] for row in rows] == list(networks())
    for row in rows:
        assert row["stages"] == list(networks()[row["name"]].stages)
        assert row["num_parameters"] > 0
        assert row["multiply_adds"] > 0
        assert "problem" not in row
    table = run("--image-size", "32").stdout
    assert all(name in table for name in networks())


def test_a_network_that_cannot_take_the_images_does_not_hide_the_others(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    from skdtune.models import measuring

    outline = measuring.outline

    def picky(name: str, *sizes: Any, **options: Any) -> Any:
        if name not in ("resnet8", "resnet18"):
            raise AssertionError("images of 32 pixels,\nno others")
        return outline(name, *sizes, **options)

    monkeypatch.setattr(measuring, "outline", picky)
    rows = {row["name"]: row for row in json.loads(run("--json").stdout)}
    assert "images of 32 pixels, no others" in rows["resnet20"]["problem"]
    assert rows["resnet8"]["num_parameters"] > 0
    assert "no others" in run().stdout


def test_one_network_in_full(run: Callable[..., Result]) -> None:
    arguments = ("resnet18", "--image-size", "64x48", "--classes", "10", "--in-channels", "1")
    row = json.loads(run(*arguments, "--width", "32", "--json").stdout)
    assert row["image_shape"] == [1, 64, 48]
    assert row["width"] == 32
    shapes = [stage["shape"] for stage in row["stages"]]
    assert shapes == [[32, 64, 48], [64, 32, 24], [128, 16, 12], [256, 8, 6]]
    parts = [stage["num_parameters"] for stage in row["stages"]]
    assert sum(parts) + row["classifier_parameters"] == row["num_parameters"]
    *inner, last = (stage["auxiliary_classifiers"] for stage in row["stages"])
    assert last == []
    for heads in inner:
        published, half, quarter = heads
        assert published["num_parameters"] > half["num_parameters"] > quarter["num_parameters"]
    printed = run(*arguments).stdout
    assert "256 x 16 x 12" in printed
    assert "adapter_width" in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("resnt50",), "did you mean 'resnet50'"),
        (("resnet8", "--image-size", "0"), "no size in pixels"),
        (("resnet8", "--image-size", "32x"), "no size in pixels"),
        (("resnet8", "--classes", "1"), "--classes"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("models", *arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert expected in output.err
    assert len(output.err.splitlines()) == 1
