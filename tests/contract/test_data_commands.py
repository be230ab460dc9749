"""``skdtune data``: what is there, what is wrong with it, and all of it made ready."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from exit_codes import exit_code
from PIL import Image

from skdtune.catalogues.datasets import DATASETS
from skdtune.data.inspection import ODDITIES

Run = Callable[..., Result]


def draw(seed: int, shape: tuple[int, ...] = (12, 16, 3), dtype: type = np.uint8) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a sound folder of three images for each of two classes and parts, none twice."""
    root = tmp_path / "pets"
    for number, part in enumerate(("train", "test")):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for index in range(3):
                seed = 100 * number + 10 * label + index
                draw(seed).save(root / part / name / f"{index}.png")
    return root


def test_every_data_set_is_listed(run: Run) -> None:
    result = run("data", "list")
    assert result.exit_code == 0
    assert all(name in result.output for name in DATASETS)
    rows = {row["name"]: row for row in json.loads(run("data", "list", "--json").output)}
    assert set(rows) == set(DATASETS)
    assert rows["digits"]["state"] == "yes"
    assert rows["imagefolder"]["state"].startswith("needs --root")
    # Not: it can be fetched.
    assert "there is no folder" in rows["cifar10"]["state"]


def test_what_is_here_is_said(run: Run, folder: Path) -> None:
    rows = json.loads(run("data", "list", "--root", str(folder), "--json").output)
    assert {row["name"]: row["state"] for row in rows}["imagefolder"] == "yes"


def test_a_sound_folder_is_fine(run: Run, folder: Path) -> None:
    result = run("data", "check", "imagefolder", "--root", str(folder))
    assert result.exit_code == 0
    assert "train: 6 images in 2 classes, 16 x 12; fewest of cat: 3" in result.output
    assert "no two images are identical" in result.output


def test_all_that_is_broken_is_named(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "train/cat/0.png").write_bytes(b"")
    whole = (folder / "train/cat/1.png").read_bytes()
    (folder / "train/cat/1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "test/dog/2.png").write_text("a web page")
    assert exit_code("data", "check", "imagefolder", "--root", str(folder)) == 1
    output = capsys.readouterr().out
    for path in ("train/cat/0.png", "train/cat/1.png", "test/dog/2.png"):
        assert f"cannot read the image {folder / path}" in output
    assert "train: 2 files cannot be decoded" in output
    seen = json.loads(run("data", "check", "imagefolder", "--root", str(folder), "--json").output)
    assert not seen["is_usable"]
    assert [len(part["broken"]) for part in seen["parts"]] == [2, 1]
    alone = run("data", "check", "imagefolder", "--root", str(folder), "--train-only")
    assert "web page" not in alone.output
    assert "test" not in alone.output.replace(str(folder), "")


def test_what_is_odd_is_counted_and_usable(run: Run, folder: Path) -> None:
    cats = folder / "train/cat"
    draw(1, (12, 16)).save(cats / "grey.png")
    draw(2).convert("CMYK").save(cats / "print.jpg")
    draw(3).convert("P").save(cats / "palette.png")
    draw(4).convert("RGBA").save(cats / "clear.png")
    draw(5, (12, 16), np.uint16).save(cats / "deep.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    draw(6).save(cats / "turned.jpg", exif=turned)
    draw(7).save(cats / "really-a.jpg", format="PNG")
    result = run("data", "check", "imagefolder", "--root", str(folder))
    assert result.exit_code == 0
    for kind in set(ODDITIES) - {"other colours"}:
        assert f"  1 {kind}: {ODDITIES[kind]}" in result.output, kind


def test_twins_are_found_leaks_first(run: Run, folder: Path) -> None:
    draw(500).save(folder / "train/cat/a.png")
    draw(500).save(folder / "train/dog/a.png")
    draw(501).save(folder / "train/cat/b.png")
    draw(501).save(folder / "test/cat/b.bmp")
    result = run("data", "check", "imagefolder", "--root", str(folder))
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert (
        "2 groups of identical images: 1 across train and test, 1 with different labels" in lines
    )
    assert lines[-2:] == [
        "  train/cat/b.png = test/cat/b.bmp",
        "  train/cat/a.png = train/dog/a.png  (cat or dog?)",
    ]


def test_what_is_missing_is_said_and_nothing_is_made(
    capsys: pytest.CaptureFixture[str], skdtune_home: Path
) -> None:
    for name in ("cifar10", "cub200", "svhn"):
        assert exit_code("data", "check", name) == 1
        output = capsys.readouterr().out
        assert output.startswith("train: there is no f")
        assert f"`skdtune data prepare {name}` fetches what can be fetched" in output
    assert not list(skdtune_home.rglob("*"))


def test_arrays_are_checked_as_a_whole(run: Run) -> None:
    result = run("data", "check", "digits")
    assert result.exit_code == 0
    assert "train: 1,347 images in 10 classes, 8 x 8" in result.output


def test_prepared_images_lie_in_the_cache(run: Run, folder: Path, skdtune_home: Path) -> None:
    result = run("data", "prepare", "imagefolder", "--root", str(folder), "--image-size", "8")
    assert result.exit_code == 0
    assert "train: 6 colour images of 8 x 8 in 2 classes, 1.2 kB in " in result.output
    cached = {path.name.split("-")[1] for path in (skdtune_home / "cache").glob("imagefolder-*")}
    assert cached == {"train", "test"}
    # What a worker finds: it decodes nothing.
    for path in folder.rglob("*.png"):
        path.chmod(0o644)
    again = run("data", "prepare", "imagefolder", "--root", str(folder), "--image-size", "8")
    assert again.output == result.output


def test_a_search_may_be_prepared_without_the_test_images(run: Run, folder: Path) -> None:
    root = str(folder)
    result = run("data", "prepare", "imagefolder", "--root", root, "--train-only", "--json")
    assert set(json.loads(result.output)) == {"train"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("check", "cifar"), "there is no data set 'cifar'; did you mean cifar10 or cifar100?"),
        (("prepare", "imagefolder"), "imagefolder needs the folder that holds train/<class>/"),
        (("prepare", "cifar10", "--no-download"), "cifar10 is missing: no folder"),
        (("prepare", "imagefolder", "--root", "/nowhere"), "the folder /nowhere does not exist"),
    ],
)
def test_a_wrong_input_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str
) -> None:
    assert exit_code("data", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"skdtune: {line}")
    assert error.count("\n") == 1
