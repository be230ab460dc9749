"""The shipped presets: all there, in the wheel too, each starting from the published setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from skdtune.describe.preset_folder import Preset, list_presets, presets_dir
from skdtune.describe.presets import is_family, load_family, load_spec
from skdtune.describe.space import FloatRange
from skdtune.describe.spec import StudySpec
from skdtune.errors import SpecError

ROOT = Path(__file__).parents[2]
DATASETS = ("digits", "cifar10", "cifar100", "imagefolder")

#: Names of the terms beside plain cross-entropy, by the name of the method in a preset's name.
TERMS: dict[str, set[str]] = {
    "baseline": set(),
    "ls": {"label_smoothing"},
    "drg": {"drg"},
    "dsr": {"dsr"},
    "drg-dsr": {"drg", "dsr"},
    "byot": {"byot"},
    "cs-kd": {"cs_kd"},
    "ps-kd": {"ps_kd"},
    "dlb": {"dlb"},
    "tfkd-self": {"tf_kd_self"},
    "tfkd-reg": {"tf_kd_reg"},
    "bake": {"bake"},
    "ddgsd": {"ddgsd"},
    "frskd": {"frskd"},
    "zipf": {"zipf"},
}
METHODS = tuple(TERMS)
PRESETS = [f"{dataset}-{method}" for dataset in DATASETS for method in METHODS]
FAMILIES = [f"{dataset}-compare" for dataset in DATASETS]
COMPARED = [method for method in METHODS if method != "tfkd-self"]

TEACHER = "method.tf_kd_self.teacher"
TEMPERATURE = "1 to 10, log"
SWITCH = "True | False"

#: What a method searches beside the recipe: the ranges that follow from the published settings.
SEARCHED: dict[str, dict[str, str]] = {
    "baseline": {},
    "ls": {"label.smoothing": "0.01 to 0.3, log"},
    "drg": {
        "drg.weight": "0.01 to 2, log",
        "drg.temperature": TEMPERATURE,
        "drg.stages": "any",
        "drg.aux_ce_weight": "0.1 to 2, log",
        "drg.teacher": "mean_probs | mean_logits",
    },
    "dsr": {
        "dsr.weight": "0.05 to 5, log",
        "dsr.temperature": TEMPERATURE,
        "dsr.pairing": "row | batch_mean",
    },
    "byot": {
        "byot.weight": "0.05 to 0.9",
        "byot.temperature": TEMPERATURE,
        "byot.match_features": SWITCH,
        "byot.feature_weight": "1e-08 to 0.0001, log",
    },
    "cs-kd": {"cs_kd.weight": "0.1 to 10, log", "cs_kd.temperature": TEMPERATURE},
    "ps-kd": {"label.weight": "0.3 to 0.95"},
    "dlb": {"dlb.weight": "0.1 to 3, log", "dlb.temperature": "1 to 6, log"},
    "tfkd-self": {"tf_kd_self.weight": "0.1 to 0.99", "tf_kd_self.temperature": "1 to 20, log"},
    "tfkd-reg": {
        "tf_kd_reg.weight": "0.01 to 0.5, log",
        "tf_kd_reg.correct_prob": "0.9 to 0.999",
    },
    "bake": {
        "bake.omega": "0.1 to 0.9",
        "bake.weight": "0.1 to 10, log",
        "bake.temperature": TEMPERATURE,
    },
    "ddgsd": {
        "ddgsd.weight": "0.1 to 5, log",
        "ddgsd.temperature": TEMPERATURE,
        "ddgsd.match_features": SWITCH,
        "ddgsd.feature_weight": "1e-05 to 1, log",
    },
    "frskd": {
        "frskd.weight": "0.5 to 5, log",
        "frskd.temperature": "2 to 8, log",
        "frskd.match_attention": SWITCH,
        "frskd.attention_weight": "10 to 500, log",
        "frskd.width": "1 | 2",
        "frskd.depth": "1 | 2",
    },
    "zipf": {
        "zipf.weight": "0.01 to 2, log",
        "zipf.power": "0.5 to 2",
        "zipf.dense": SWITCH,
        "zipf.upsample": SWITCH,
    },
}
SEARCHED["drg-dsr"] = SEARCHED["drg"] | SEARCHED["dsr"]
STAGES = {"resnet8": "1 | 2 | 1+2", "resnet18": "1 | 2 | 3 | 1+2 | 1+3 | 2+3 | 1+2+3"}

#: What is searched only with a certain choice of something else.
CONDITIONAL = {
    "method.drg.teacher": "method.drg.stages",
    "method.byot.feature_weight": "method.byot.match_features",
    "method.ddgsd.feature_weight": "method.ddgsd.match_features",
    "method.frskd.attention_weight": "method.frskd.match_attention",
    "method.zipf.upsample": "method.zipf.dense",
}

#: The published settings, in full: what is not searched counts as well.
PUBLISHED: dict[str, dict[str, Any]] = {
    "baseline": {"label": {"name": "cross_entropy"}},
    "ls": {"label": {"name": "label_smoothing", "smoothing": 0.1}},
    "drg": {
        "drg": {
            "weight": 0.2,
            "temperature": 4.0,
            "stages": [2],
            "aux_ce_weight": 1.0,
            "teacher": "mean_probs",
            "align_corners": "published",
        }
    },
    "dsr": {"dsr": {"weight": 1.0, "temperature": 4.0, "pairing": "row"}},
    "byot": {
        "byot": {
            "weight": 0.1,
            "temperature": 3.0,
            "stages": None,
            "aux_ce_weight": 1.0,
            "match_features": True,
            "feature_weight": 1e-6,
        }
    },
    "cs-kd": {"cs_kd": {"weight": 1.0, "temperature": 4.0}},
    "ps-kd": {"label": {"name": "ps_kd", "weight": 0.8}},
    "dlb": {"dlb": {"weight": 1.0, "temperature": 3.0}},
    "tfkd-self": {
        "tf_kd_self": {
            "teacher": "/teacher.safetensors",
            "teacher_sha256": "a" * 64,
            "weight": 0.95,
            "temperature": 6.0,
            "multiplier": None,
        }
    },
    "tfkd-reg": {
        "tf_kd_reg": {
            "weight": 0.1,
            "correct_prob": 0.99,
            "temperature": 20.0,
            "multiplier": None,
        }
    },
    "bake": {"bake": {"weight": 1.0, "temperature": 4.0, "omega": 0.5, "num_companions": 3}},
    "ddgsd": {
        "ddgsd": {
            "weight": 1.0,
            "temperature": 4.0,
            "match_features": True,
            "feature_weight": 5e-4,
            "discrepancy": "scalar",
        }
    },
    "frskd": {
        "frskd": {
            "weight": 2.0,
            "temperature": 4.0,
            "match_attention": True,
            "attention_weight": 100.0,
            "aux_ce_weight": 1.0,
            "width": 2,
            "depth": 2,
        }
    },
    "zipf": {"zipf": {"weight": 0.1, "power": 1.0, "dense": True, "upsample": True}},
}
PUBLISHED["drg-dsr"] = PUBLISHED["drg"] | PUBLISHED["dsr"]


def method_of(preset: str) -> str:
    return preset.split("-", 1)[1]


def needed(preset: str) -> list[str]:
    """Return settings for what a preset cannot bring along: a folder of images, a teacher."""
    settings = ["data.root=/images"] if preset.startswith("imagefolder") else []
    if preset.endswith("tfkd-self"):
        settings += [f"{TEACHER}=/teacher.safetensors", f"{TEACHER}_sha256={'a' * 64}"]
    return settings


@lru_cache
def load(preset: str) -> StudySpec:
    return load_spec(preset, overrides=needed(preset))


@lru_cache
def load_all(family: str) -> dict[str, StudySpec]:
    return {
        spec.name.removeprefix(f"{family}-"): spec
        for spec in load_family(family, overrides=needed(family))
    }


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
    assert spec.data.name == preset.split("-")[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_terms_in_its_name(preset: str) -> None:
    terms = load(preset).method.terms()
    names = {terms.pop("label").name, *terms}  # type: ignore[attr-defined]
    assert names - {"cross_entropy"} == TERMS[method_of(preset)]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_searches_the_knobs_of_its_method_in_its_ranges(preset: str) -> None:
    spec = load(preset)
    expected = {f"method.{path}": text for path, text in SEARCHED[method_of(preset)].items()}
    expected |= {"optimizer.lr": "0.01 to 0.5, log"}
    expected |= {"optimizer.weight_decay": "5e-05 to 0.002, log"}
    if "method.drg.stages" in expected:
        expected["method.drg.stages"] = STAGES[spec.model.name]
    assert {path: param.describe() for path, param in spec.search.items()} == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_every_range_has_a_reason(preset: str) -> None:
    assert all(param.reason.strip() for param in load(preset).search.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_what_another_choice_switches_off_waits_for_it(preset: str) -> None:
    search = load(preset).search
    conditional = {path: parent for path, param in search.items() for parent in param.when}
    assert conditional == {path: on for path, on in CONDITIONAL.items() if path in search}


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


@pytest.mark.parametrize(
    ("model", "stages"), [("resnet50", STAGES["resnet18"]), ("resnet20", STAGES["resnet8"])]
)
def test_another_backbone_brings_its_own_stages(model: str, stages: str) -> None:
    spec = load_spec("cifar100-drg", overrides=[f"model.name={model}"])
    assert spec.search["method.drg.stages"].describe() == stages


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.endswith("tfkd-self")])
def test_only_a_teacher_has_to_be_brought_along(preset: str) -> None:
    data_only = [setting for setting in needed(preset) if TEACHER not in setting]
    with pytest.raises(SpecError) as raised:
        load_spec(preset, overrides=data_only)
    assert str(raised.value).startswith(preset)
    assert f"{TEACHER}: needs a trained baseline of the same network" in str(raised.value)
    assert "skdtune export" in str(raised.value)


# Trial 0: the published setting


@pytest.mark.parametrize("preset", PRESETS)
def test_trial_0_has_the_published_learning_rate_and_weight_decay(preset: str) -> None:
    params = load(preset).base_params()
    assert params["optimizer.lr"] == 0.1
    assert params["optimizer.weight_decay"] == 5e-4


@pytest.mark.parametrize("preset", PRESETS)
def test_trial_0_is_the_published_setting_of_the_method(preset: str) -> None:
    spec = load(preset)
    method = spec.trial_config(spec.base_params(), 0).method.model_dump(mode="json")
    found = {name: settings for name, settings in method.items() if settings is not None}
    assert found == {"label": {"name": "cross_entropy"}} | PUBLISHED[method_of(preset)]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_published_setting_lies_inside_of_every_range_and_at_no_end(preset: str) -> None:
    spec = load(preset)
    for path, value in spec.base_params().items():
        param = spec.search[path]
        assert param.contains(value)
        assert not isinstance(param, FloatRange) or value not in param.examples()


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


# Families: one study for each method, and nothing else differs


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_compares_all_methods_that_need_no_teacher(family: str) -> None:
    studies = load_all(family)
    assert list(studies) == COMPARED
    assert {spec.family for spec in studies.values()} == {family}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_studies_of_a_family_train_on_the_same_number_of_images(family: str) -> None:
    studies = load_all(family).values()
    images = {spec.budget.epochs * spec.method.images_per_anchor for spec in studies}
    assert images == {12 if family.startswith("digits") else 200}
    assert {spec.method.images_per_anchor for spec in studies} == {1, 2, 4}


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


def test_one_file_is_all_that_a_data_set_or_a_method_has() -> None:
    studies = ROOT / "studies"
    assert {path.stem for path in (studies / "data").iterdir()} == set(DATASETS)
    assert {path.stem for path in (studies / "methods").iterdir()} == set(METHODS)
    top = {path.name for path in studies.iterdir() if path.is_file()}
    assert top == {"recipe.yaml", "compare.yaml"}


@pytest.mark.parametrize("dataset", DATASETS)
def test_values_of_a_pair_are_those_of_a_method_that_there_is(dataset: str) -> None:
    content = yaml.safe_load((ROOT / "studies" / "data" / f"{dataset}.yaml").read_text())
    assert set(content.get("methods", {})) <= set(METHODS)


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
