"""The shipped presets: all there, in the wheel too, each starting from the published setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from skdtune.presets import list_presets, load_spec, presets_dir
from skdtune.spec import StudySpec

ROOT = Path(__file__).parents[2]
DATASETS = ("digits", "cifar10", "cifar100", "imagefolder")
METHODS = ("baseline", "ls", "drg", "dsr", "drg-dsr")
PRESETS = [f"{dataset}-{method}" for dataset in DATASETS for method in METHODS]

RECIPE = {"optimizer.lr", "optimizer.weight_decay"}
DRG = {
    "method.drg.weight",
    "method.drg.temperature",
    "method.drg.stages",
    "method.drg.aux_ce_weight",
    "method.drg.teacher",
}
DSR = {"method.dsr.weight", "method.dsr.temperature", "method.dsr.pairing"}
SEARCHED = {
    "baseline": RECIPE,
    "ls": RECIPE | {"method.label.smoothing"},
    "drg": RECIPE | DRG,
    "dsr": RECIPE | DSR,
    "drg-dsr": RECIPE | DRG | DSR,
}


def load(preset: str) -> StudySpec:
    root = ["data.root=/images"] if preset.startswith("imagefolder") else []
    return load_spec(preset, overrides=root)


def having(part: str) -> list[str]:
    return [preset for preset in PRESETS if part in preset.split("-", 1)[1].split("-")]


def test_there_is_one_preset_for_each_data_set_and_method() -> None:
    assert sorted(preset.name for preset in list_presets()) == sorted(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_what_it_is_in_one_line(preset: str) -> None:
    description = load(preset).description
    assert description.strip()
    assert "\n" not in description


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains_on_the_data_in_its_name(preset: str) -> None:
    spec = load(preset)
    assert spec.name == preset
    assert spec.data.name == preset.split("-")[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_terms_in_its_name(preset: str) -> None:
    method = load(preset).method
    assert (method.drg is not None) == (preset in having("drg"))
    assert (method.dsr is not None) == (preset in having("dsr"))
    expected = "label_smoothing" if preset in having("ls") else "cross_entropy"
    assert method.label.name == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_searches_the_knobs_of_its_method(preset: str) -> None:
    spec = load(preset)
    assert set(spec.search) == SEARCHED[preset.split("-", 1)[1]]
    assert all(param.reason for param in spec.search.values())


def test_no_two_presets_are_the_same_study() -> None:
    assert len({load(preset).digest for preset in PRESETS}) == len(PRESETS)


# The search space


@pytest.mark.parametrize("preset", PRESETS)
def test_the_recipe_is_searched_a_decade_around_the_published_one(preset: str) -> None:
    search = load(preset).search
    assert search["optimizer.lr"].describe() == "0.01 to 0.5, log"
    assert search["optimizer.weight_decay"].describe() == "5e-05 to 0.002, log"


@pytest.mark.parametrize("preset", having("drg"))
def test_drg_is_searched_in_the_ranges_of_the_method(preset: str) -> None:
    spec = load(preset)
    assert {path: spec.search[path].describe() for path in DRG} == {
        "method.drg.weight": "0.01 to 2, log",
        "method.drg.temperature": "1 to 10, log",
        "method.drg.stages": STAGES[spec.model.name],
        "method.drg.aux_ce_weight": "0.1 to 2, log",
        "method.drg.teacher": "mean_probs | mean_logits",
    }


STAGES = {"resnet8": "1 | 2 | 1+2", "resnet18": "1 | 2 | 3 | 1+2 | 1+3 | 2+3 | 1+2+3"}


@pytest.mark.parametrize("preset", having("dsr"))
def test_dsr_is_searched_in_the_ranges_of_the_method(preset: str) -> None:
    spec = load(preset)
    assert {path: spec.search[path].describe() for path in DSR} == {
        "method.dsr.weight": "0.05 to 5, log",
        "method.dsr.temperature": "1 to 10, log",
        "method.dsr.pairing": "row | batch_mean",
    }


@pytest.mark.parametrize("preset", having("drg"))
def test_only_the_form_of_the_teacher_waits_for_another_choice(preset: str) -> None:
    search = load(preset).search
    conditional = {path for path, param in search.items() if param.when}
    assert conditional == {"method.drg.teacher"}


@pytest.mark.parametrize(
    ("model", "stages"), [("resnet50", STAGES["resnet18"]), ("resnet20", STAGES["resnet8"])]
)
def test_another_backbone_brings_its_own_stages(model: str, stages: str) -> None:
    spec = load_spec("cifar100-drg", overrides=[f"model.name={model}"])
    assert spec.search["method.drg.stages"].describe() == stages


# Trial 0: the published setting


@pytest.mark.parametrize("preset", PRESETS)
def test_trial_0_has_the_published_learning_rate_and_weight_decay(preset: str) -> None:
    params = load(preset).base_params()
    assert params["optimizer.lr"] == 0.1
    assert params["optimizer.weight_decay"] == 5e-4


@pytest.mark.parametrize("preset", having("drg"))
def test_trial_0_of_drg_is_the_published_setting(preset: str) -> None:
    spec = load(preset)
    drg = spec.trial_config(spec.base_params(), 0).method.drg
    assert drg is not None
    assert (drg.weight, drg.temperature, drg.stages) == (0.2, 4.0, (2,))
    assert drg.aux_ce_weight == 1.0
    assert drg.align_corners == "published"


@pytest.mark.parametrize("preset", having("dsr"))
def test_trial_0_of_dsr_is_the_published_setting(preset: str) -> None:
    spec = load(preset)
    dsr = spec.trial_config(spec.base_params(), 0).method.dsr
    assert dsr is not None
    assert (dsr.weight, dsr.temperature, dsr.pairing) == (1.0, 4.0, "row")


@pytest.mark.parametrize("preset", having("ls"))
def test_trial_0_of_label_smoothing_is_the_usual_setting(preset: str) -> None:
    assert load(preset).base_params()["method.label.smoothing"] == 0.1


@pytest.mark.parametrize("preset", [name for name in PRESETS if not name.startswith("digits")])
def test_the_training_recipe_is_the_published_one(preset: str) -> None:
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


@pytest.mark.parametrize("method", METHODS)
def test_digits_are_not_mirrored_and_take_seconds(method: str) -> None:
    spec = load(f"digits-{method}")
    assert not spec.data.flip
    assert spec.model.name == "resnet8"
    assert spec.budget.epochs == 12
    assert spec.num_trials >= 16


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
    assert len(shipped) > len(PRESETS)
    assert {name for name in names if name.endswith(".yaml")} == shipped
    assert "skdtune/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"skdtune"}


def test_presets_are_found_in_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "import json, skdtune; from skdtune.presets import *; "
        "specs = [load_spec(p.name, overrides=['data.root=/images']) for p in list_presets()]; "
        "print(json.dumps([skdtune.__file__, str(presets_dir()), [s.name for s in specs]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    package, folder, names = json.loads(done.stdout)
    assert Path(package) == tmp_path / "site" / "skdtune" / "__init__.py"
    assert Path(folder) == tmp_path / "site" / "skdtune" / "studies"
    assert sorted(names) == sorted(PRESETS)


def test_presets_of_a_checkout_are_those_beside_the_package() -> None:
    assert presets_dir() == ROOT / "studies"
