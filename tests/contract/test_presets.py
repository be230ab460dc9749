"""The shipped presets: all there, in the wheel too, each starting from the published setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from preset_cases import (
    DATASETS,
    FAMILIES,
    FOLLOWING,
    METHODS,
    PRESETS,
    TAUGHT,
    load,
    load_all,
    method_of_trial_0,
    named_by,
    needed,
    parts_of,
    read,
    searched_by,
)

from skdtune.catalogues.datasets import DATASETS as CATALOGUED_DATASETS
from skdtune.catalogues.methods import METHODS as CATALOGUED_METHODS
from skdtune.describe.method_config import PLAIN_LABEL
from skdtune.describe.preset_folder import Preset, list_presets, presets_dir
from skdtune.describe.presets import is_family, load_spec
from skdtune.describe.space import FloatRange
from skdtune.errors import SpecError

ROOT = Path(__file__).parents[2]
COMPARED = read("compare")["compare"]


def test_there_is_one_preset_for_each_data_set_and_method_and_a_family_of_them() -> None:
    listed = [preset.name for preset in list_presets()]
    assert [name for name in listed if not name.endswith("-tuned")] == sorted(PRESETS + FAMILIES)
    assert [name for name in sorted(PRESETS + FAMILIES) if is_family(name)] == sorted(FAMILIES)


@pytest.mark.parametrize("preset", list_presets(), ids=lambda preset: preset.name)
def test_a_preset_says_what_it_is_in_one_line(preset: Preset) -> None:
    assert preset.description.strip()
    assert "\n" not in preset.description
    if preset.name in PRESETS:
        assert load(preset.name).description == preset.description


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains_on_the_data_in_its_name(preset: str) -> None:
    spec = load(preset)
    assert spec.name == preset
    assert spec.family == ""
    assert spec.data.name == read(f"data/{preset.split('-')[0]}")["data"]["name"]


def test_every_data_set_and_method_of_the_catalogues_has_presets() -> None:
    built_in = [name for name in CATALOGUED_DATASETS if name not in CATALOGUED_DATASETS.offered]
    assert {read(f"data/{dataset}")["data"]["name"] for dataset in DATASETS} == set(built_in)
    named = set().union({PLAIN_LABEL}, *map(named_by, METHODS))
    offered = CATALOGUED_METHODS.offered
    assert named == {name for name in CATALOGUED_METHODS if name not in offered}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_terms_that_the_file_of_its_method_names(preset: str) -> None:
    terms = load(preset).method.terms()
    names = {terms.pop("label").name, *terms}  # type: ignore[attr-defined]
    named = named_by(preset.split("-", 1)[1])
    assert names - {PLAIN_LABEL} == named - {PLAIN_LABEL}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_searches_its_own_terms_and_the_recipe_and_nothing_else(preset: str) -> None:
    spec = load(preset)
    recipe = {path for path in spec.search if not path.startswith("method.")}
    assert recipe == {"optimizer.lr", "optimizer.weight_decay"}
    searched = {path.split(".")[1] for path in spec.search if path.startswith("method.")}
    terms = set(spec.method.terms())
    assert searched <= terms
    # The plain label term has nothing to search; all others have.
    assert terms - {"label"} <= searched


@pytest.mark.parametrize(
    "preset", [f"{d}-{m}" for d in DATASETS for m in METHODS if len(parts_of(m)) > 1]
)
def test_a_preset_of_several_methods_is_each_of_them(preset: str) -> None:
    dataset, _, method = preset.partition("-")
    parts = [load(f"{dataset}-{part}") for part in parts_of(method)]
    settings: dict[str, Any] = {}
    searched: dict[str, str] = {}
    waits: dict[str, str] = {}
    for part in parts:
        settings |= method_of_trial_0(part)
        of_part = searched_by(part)
        searched |= of_part[0]
        waits |= of_part[1]
    assert method_of_trial_0(load(preset)) == settings
    assert searched_by(load(preset)) == (searched, waits)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_range_has_a_reason(preset: str) -> None:
    assert all(param.reason.strip() for param in load(preset).search.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_what_waits_for_another_choice_waits_for_one_that_is_searched(preset: str) -> None:
    search = load(preset).search
    for path, param in search.items():
        assert path not in param.when
        assert set(param.when) <= set(search)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_trial_of_a_preset_costs_other_images_than_the_others(preset: str) -> None:
    spec = load(preset)
    cost = spec.method.images_per_anchor
    for path, param in spec.search.items():
        for value in param.examples():
            method = spec.trial_config({path: value}, 1).method
            assert method.images_per_anchor == cost


def test_no_two_presets_are_the_same_study() -> None:
    assert len({load(preset).digest for preset in PRESETS}) == len(PRESETS)


@pytest.mark.parametrize("preset", [f"{d}-{method}" for d in DATASETS for method in TAUGHT])
def test_only_a_teacher_has_to_be_brought_along(preset: str) -> None:
    (term,) = TAUGHT[preset.split("-", 1)[1]]
    teacher = f"method.{term}.teacher"
    data_only = [setting for setting in needed(preset) if teacher not in setting]
    with pytest.raises(SpecError) as raised:
        load_spec(preset, overrides=data_only)
    assert str(raised.value).startswith(preset)
    assert f"{teacher}: needs a trained baseline of the same network" in str(raised.value)
    assert "skdtune export" in str(raised.value)


# Trial 0: the published setting


@pytest.mark.parametrize("preset", PRESETS)
def test_the_published_setting_lies_inside_of_every_range_and_at_no_end(preset: str) -> None:
    spec = load(preset)
    for path, value in spec.base_params().items():
        param = spec.search[path]
        assert param.contains(value)
        assert not isinstance(param, FloatRange) or value not in param.examples()


follows_the_recipe = pytest.mark.parametrize(
    "preset", [f"{dataset}-{method}" for dataset in FOLLOWING for method in METHODS]
)


@follows_the_recipe
def test_the_recipe_searches_around_the_published_one(preset: str) -> None:
    spec = load(preset)
    searched = {p: r.describe() for p, r in spec.search.items() if not p.startswith("method.")}
    assert searched == {
        "optimizer.lr": "0.01 to 0.5, log",
        "optimizer.weight_decay": "5e-05 to 0.002, log",
    }
    params = spec.base_params()
    assert params["optimizer.lr"] == 0.1
    assert params["optimizer.weight_decay"] == 5e-4


@follows_the_recipe
def test_the_recipe_is_the_published_one(preset: str) -> None:
    spec = load(preset)
    config = spec.trial_config(spec.base_params(), 0)
    assert config.model.name == "resnet18"
    assert config.budget.epochs == 200
    optimizer = config.optimizer
    assert optimizer.schedule == "multistep"
    assert [share * config.budget.epochs for share in optimizer.milestones] == [60, 120, 160]
    assert (optimizer.momentum, optimizer.nesterov, optimizer.gamma) == (0.9, False, 0.1)
    assert optimizer.warmup_epochs == 0
    data = config.data
    assert (data.batch_size, data.crop, data.crop_padding, data.flip) == (128, "pad", 4, True)


# Families: one study for each method, and nothing else differs


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_compares_all_methods_that_need_no_teacher(family: str) -> None:
    studies = load_all(family)
    assert list(studies) == COMPARED
    assert sorted(studies) == [method for method in METHODS if method not in TAUGHT]
    assert {spec.family for spec in studies.values()} == {family}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_studies_of_a_family_train_on_the_same_number_of_images(family: str) -> None:
    studies = load_all(family).values()
    images = {spec.budget.epochs * spec.method.images_per_anchor for spec in studies}
    baseline = load(family.replace("-compare", "-baseline"))
    assert images == {baseline.budget.epochs}
    assert len({spec.method.images_per_anchor for spec in studies}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_studies_of_a_family_differ_in_the_method_alone(family: str) -> None:
    own = {"name", "description", "method", "search", "budget"}
    baseline, *others = (spec.model_dump(exclude=own) for spec in load_all(family).values())
    assert all(other == baseline for other in others)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_study_of_a_family_is_its_preset_but_for_the_length_of_its_trials(family: str) -> None:
    dataset = family.removesuffix("-compare")
    own = {"name", "family", "budget"}
    for method, spec in load_all(family).items():
        preset = load(f"{dataset}-{method}")
        assert spec.model_dump(exclude=own) == preset.model_dump(exclude=own)


# The folder: one file for a data set, one for a method, one list


def test_nothing_lies_beside_the_files_of_data_sets_and_methods() -> None:
    studies = ROOT / "studies"
    top = {path.name for path in studies.iterdir() if path.is_file()}
    assert top == {"recipe.yaml", "compare.yaml"}
    for folder in ("data", "methods"):
        assert {path.suffix for path in (studies / folder).iterdir()} == {".yaml"}


@pytest.mark.parametrize("dataset", DATASETS)
def test_values_of_a_pair_are_those_of_a_method_that_there_is(dataset: str) -> None:
    assert set(read(f"data/{dataset}").get("methods", {})) <= set(METHODS)


def test_every_tuned_preset_is_listed_and_comes_with_its_evidence() -> None:
    listed = {preset.name for preset in list_presets()}
    for path in (ROOT / "studies" / "tuned").glob("*.yaml"):
        assert path.stem in listed, f"{path.name} must be called <something>-tuned.yaml"
        for evidence in ("study", "hash", "command", "machine", "number"):
            assert f"\n#   {evidence}: " in path.read_text(), f"{path.name} lacks its {evidence}"


# Installed from a wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_study_file_and_nothing_beside_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    studies = ROOT / "studies"
    shipped = {f"skdtune/studies/{p.relative_to(studies)}" for p in studies.rglob("*.yaml")}
    assert len(shipped) >= len(DATASETS) + len(METHODS) + len(("recipe", "compare"))
    assert {name for name in names if name.endswith(".yaml")} == shipped
    assert "skdtune/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"skdtune"}


def test_presets_are_found_in_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "import json, sys, skdtune; from skdtune.describe.presets import *; "
        "from skdtune.describe.preset_folder import list_presets, presets_dir; "
        "asked = json.load(sys.stdin); "
        "alone = [load_spec(n, overrides=o).name for n, o in asked.items() if not is_family(n)]; "
        "all = {n: [s.name for s in load_family(n, overrides=o)] "
        "for n, o in asked.items() if is_family(n)}; "
        "there = [p.name for p in list_presets()]; "
        "print(json.dumps([skdtune.__file__, str(presets_dir()), there, alone, all]))"
    )
    names = sorted(PRESETS + FAMILIES)
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps({name: needed(name) for name in names}),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    package, folder, there, alone, families = json.loads(done.stdout)
    assert Path(package) == tmp_path / "site" / "skdtune" / "__init__.py"
    assert Path(folder) == tmp_path / "site" / "skdtune" / "studies"
    assert [name for name in there if not name.endswith("-tuned")] == names
    assert sorted(alone) == sorted(PRESETS)
    assert families == {
        family: [f"{family}-{method}" for method in COMPARED] for family in FAMILIES
    }


def test_presets_of_a_checkout_are_those_beside_the_package() -> None:
    assert presets_dir() == ROOT / "studies"
