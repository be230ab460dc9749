"""Families of studies to compare, and the teacher file of a study: what their files may say."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from preset_cases import read

from skdtune.describe.presets import is_family, load_family, load_spec, with_teacher
from skdtune.describe.spec import StudySpec, spec_from_json
from skdtune.errors import SpecError

METHODS = read("compare")["compare"]


def write(path: Path, content: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def names(specs: list[StudySpec]) -> list[str]:
    return [spec.name for spec in specs]


def refusal(*arguments: Any, **named: Any) -> str:
    with pytest.raises(SpecError) as raised:
        load_family(*arguments, **named)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Families


def test_a_family_is_told_from_a_study() -> None:
    assert is_family("digits-compare")
    assert not is_family("digits-drg")
    with pytest.raises(SpecError, match="digits-compare is a family of studies"):
        load_spec("digits-compare")
    with pytest.raises(SpecError, match="digits-drg is one study, no family of them"):
        load_family("digits-drg")


def test_its_studies_are_named_after_it_and_belong_to_it() -> None:
    for name, family in ((None, "digits-compare"), ("mine", "mine")):
        specs = load_family("digits-compare", name=name)
        assert names(specs) == [f"{family}-{method}" for method in METHODS]
        assert {spec.family for spec in specs} == {family}


def test_a_setting_counts_for_all_of_them() -> None:
    overrides = ["optimizer.lr=0.05", "seed=3", "data.val_fraction=0.2", "pruner.name=none"]
    for spec in load_family("digits-compare", overrides=overrides, num_trials=7):
        assert spec.optimizer.lr == 0.05
        assert spec.seed == 3
        assert spec.data.val_fraction == 0.2
        assert spec.pruner.name == "none"
        assert spec.num_trials == 7


def test_the_recipe_that_all_of_them_search_can_be_narrowed() -> None:
    overrides = ["search.optimizer.lr.high=0.2", "search.optimizer.weight_decay=null"]
    for spec in load_family("digits-compare", overrides=overrides):
        assert spec.search["optimizer.lr"].describe() == "0.01 to 0.2, log"
        assert "optimizer.weight_decay" not in spec.search


@pytest.mark.parametrize("epochs", [4, 8, 20, 200])
def test_another_number_of_epochs_keeps_the_images_equal(epochs: int) -> None:
    specs = load_family("digits-compare", overrides=[f"budget.epochs={epochs}"])
    assert {spec.budget.epochs * spec.method.images_per_anchor for spec in specs} == {epochs}


@pytest.mark.parametrize(
    ("epochs", "method", "factor", "remedy"),
    [(15, "cs-kd", 2, "14 or 16"), (14, "bake", 4, "12 or 16"), (1, "cs-kd", 2, "2")],
)
def test_a_number_of_epochs_that_cannot_be_divided_is_refused(
    epochs: int, method: str, factor: int, remedy: str
) -> None:
    message = refusal("digits-compare", overrides=[f"budget.epochs={epochs}"])
    assert message == (
        f"budget.epochs: digits-compare-{method} classifies {factor} images for every one of a "
        f"plain epoch, so equal budgets need a multiple of {factor}, received {epochs}; "
        f"take {remedy}"
    )


@pytest.mark.parametrize("measure", ["images=50000", "seconds=3.5"])
def test_a_budget_in_images_or_seconds_is_left_for_the_plan(measure: str) -> None:
    for spec in load_family("digits-compare", overrides=[f"budget.{measure}"]):
        assert spec.budget.is_open
        assert spec.budget.epochs == 12


@pytest.mark.parametrize(
    "override",
    [
        "method.drg.weight=0.3",
        "method.label.name=label_smoothing",
        "method={}",
        "search.method.drg.weight=null",
        "search.method.drg.weight.high=1",
    ],
)
def test_a_setting_of_a_method_is_refused(override: str) -> None:
    key = override.partition("=")[0]
    expected = f"--set {key}: a family has several methods; create that study alone"
    assert refusal("digits-compare", overrides=[override]) == expected


@pytest.mark.parametrize("key", ["name", "family"])
def test_one_name_for_all_studies_is_refused(key: str) -> None:
    message = refusal("digits-compare", overrides=[f"{key}=x"])
    assert message == f"--set {key}: the studies of a family are named after it, by --name"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optimizer.lrr=1", ("--set optimizer.lrr: unknown key", "'optimizer.lr'")),
        (
            "optimizer.lr=2",
            ("digits-baseline in digits-compare.yaml with --set: ", "0 would try 2.0"),
        ),
        ("compare=[digits-drg]", ("--set compare: unknown key",)),
        (
            "data.batch_size=30",
            ("digits-bake in digits-compare.yaml", "method.bake.num_companions", "(30)"),
        ),
        ("seed=[", ("--set seed=[: the value is not valid YAML",)),
    ],
)
def test_a_wrong_setting_is_refused_with_its_key(override: str, parts: tuple[str, ...]) -> None:
    message = refusal("digits-compare", overrides=[override])
    assert all(part in message for part in parts), message


def test_a_name_that_no_study_can_have_is_refused() -> None:
    assert "name: received 'a b-baseline'" in refusal("digits-compare", name="a b")


@pytest.mark.parametrize(
    "compare",
    ["digits-drg", 5, None, {}, [1, 2], ["digits-drg", None], [["digits-drg"]], True],
)
def test_what_is_compared_is_a_list_of_presets(tmp_path: Path, compare: Any) -> None:
    file = write(tmp_path / "mine.yaml", {"compare": compare})
    assert is_family(file)
    assert refusal(file) == "mine.yaml: compare: expected a list of presets"


@pytest.mark.parametrize("compare", [[], ["digits-drg"], ["digits-drg", "digits-drg"]])
def test_a_comparison_needs_two_studies(tmp_path: Path, compare: Any) -> None:
    file = write(tmp_path / "mine.yaml", {"compare": compare})
    assert refusal(file) == "mine.yaml: compare: expected at least two different presets"


def test_a_member_that_is_not_there_is_named_together_with_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", {"compare": ["digits-drg", "digits-hinge"]})
    message = refusal(file)
    assert message.startswith("mine.yaml: ")
    assert "'digits-hinge', but there is no such preset or file" in message


def test_a_file_of_ones_own_compares_presets_and_files(tmp_path: Path) -> None:
    mine = {"extends": "digits-drg", "name": "other", "method": {"drg": {"stages": [1]}}}
    write(tmp_path / "digits-shallow.yaml", mine)
    family = {
        "compare": ["digits-baseline", "digits-shallow", "digits-drg-dsr"],
        "description": "mine",
        "num_trials": 3,
        "optimizer": {"lr": 0.05},
    }
    file = write(tmp_path / "mine.yaml", family)
    specs = load_family(file)
    assert names(specs) == ["mine-baseline", "mine-shallow", "mine-drg-dsr"]
    assert {(spec.family, spec.num_trials, spec.optimizer.lr) for spec in specs} == {
        ("mine", 3, 0.05)
    }
    drg = specs[1].method.drg
    assert drg is not None
    assert drg.stages == (1,)
    # The family's description and name are not its members'.
    assert specs[0].description == load_spec("digits-baseline").description
    assert specs[1].description == ""


def test_the_part_of_the_names_that_all_share_is_left_out(tmp_path: Path) -> None:
    for compare, expected in (
        (["digits-drg", "cifar10-drg"], ["f-digits-drg", "f-cifar10-drg"]),
        (["digits-drg", "digits-drg-dsr"], ["f-drg", "f-drg-dsr"]),
    ):
        assert names(load_family(write(tmp_path / "f.yaml", {"compare": compare}))) == expected


def test_a_family_can_be_extended(tmp_path: Path) -> None:
    file = write(tmp_path / "short.yaml", {"extends": "digits-compare", "num_trials": 2})
    assert is_family(file)
    specs = load_family(file)
    assert names(specs) == [f"short-{method}" for method in METHODS]
    assert {spec.num_trials for spec in specs} == {2}
    fewer = {"extends": "short", "compare": ["digits-ls", "digits-dsr"]}
    assert names(load_family(write(tmp_path / "two.yaml", fewer))) == ["two-ls", "two-dsr"]


def test_a_family_that_extends_nothing_gives_what_its_file_says_to_every_study(
    tmp_path: Path,
) -> None:
    file = {"compare": ["digits-ls", "digits-dsr"], "seed": 4, "budget": {"epochs": 6}}
    for spec in load_family(write(tmp_path / "mine.yaml", file)):
        assert (spec.seed, spec.budget.epochs) == (4, 6)
        assert spec.data == load_spec("digits-ls").data


def test_a_wrong_key_of_the_file_is_refused(tmp_path: Path) -> None:
    file = {"compare": ["digits-ls", "digits-dsr"], "sed": 4}
    message = refusal(write(tmp_path / "mine.yaml", file))
    assert message.startswith("digits-ls in ")
    assert "mine.yaml: sed: unknown key; did you mean 'seed'?" in message


def test_a_family_is_no_member_of_another(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", {"compare": ["digits-compare", "cifar10-drg"]})
    assert "compare" in refusal(file)


def test_a_member_may_have_a_teacher_of_its_own(tmp_path: Path) -> None:
    teacher = {"teacher": "/t", "teacher_sha256": "a" * 64}
    mine = {"extends": "digits-tfkd-self", "method": {"tf_kd_self": teacher}}
    write(tmp_path / "digits-taught.yaml", mine)
    file = write(tmp_path / "mine.yaml", {"compare": ["digits-baseline", "digits-taught"]})
    assert names(load_family(file)) == ["mine-baseline", "mine-taught"]
    alone = write(tmp_path / "mine.yaml", {"compare": ["digits-baseline", "digits-tfkd-self"]})
    assert "mine.yaml: method.tf_kd_self.teacher: needs a trained baseline" in refusal(alone)


def test_no_study_written_by_hand_is_an_evaluation(tmp_path: Path) -> None:
    file = {"compare": ["digits-ls", "digits-dsr"], "evaluation": {"source": "x"}}
    assert "evaluation: only `skdtune evaluate` writes it" in refusal(
        write(tmp_path / "mine.yaml", file)
    )


# The teacher of TF-KD


def teacher_of(*overrides: str) -> tuple[str, str]:
    settings = load_spec("digits-tfkd-self", overrides=overrides).method.tf_kd_self
    assert settings is not None
    return settings.teacher, settings.teacher_sha256


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    path = tmp_path / "baseline" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"a network")
    return path


CHECKSUM = hashlib.sha256(b"a network").hexdigest()


def test_a_teacher_is_found_from_wherever_the_worker_starts(
    teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(teacher_file.parents[1])
    monkeypatch.setenv("HOME", str(teacher_file.parents[1]))
    for named in ("baseline/model.safetensors", "~/baseline/model.safetensors", teacher_file):
        found = teacher_of(f"method.tf_kd_self.teacher={named}")
        assert found == (str(teacher_file), CHECKSUM)


def test_the_checksum_is_part_of_the_study(teacher_file: Path) -> None:
    override = f"method.tf_kd_self.teacher={teacher_file}"
    before = load_spec("digits-tfkd-self", overrides=[override])
    again = spec_from_json(before.to_json())
    assert again == before
    teacher_file.write_bytes(b"another network")
    assert load_spec("digits-tfkd-self", overrides=[override]).digest != before.digest


def test_a_checksum_that_was_given_stands_for_a_file_that_is_not_here(
    teacher_file: Path, tmp_path: Path
) -> None:
    given = "method.tf_kd_self.teacher_sha256="
    elsewhere = tmp_path / "elsewhere.safetensors"
    for named, checksum in ((elsewhere, "ab" * 32), (teacher_file, CHECKSUM)):
        found = teacher_of(f"method.tf_kd_self.teacher={named}", given + checksum)
        assert found == (str(named), checksum)
    with pytest.raises(SpecError) as raised:
        teacher_of(f"method.tf_kd_self.teacher={teacher_file}", given + "ab" * 32)
    assert str(raised.value).endswith(
        f"method.tf_kd_self.teacher_sha256: that of {teacher_file} is {CHECKSUM}, "
        f"received {'ab' * 32}"
    )


@pytest.mark.parametrize("teacher", ["null", "''", "5", "[x]"])
def test_a_study_without_a_teacher_says_how_to_make_one(teacher: str) -> None:
    with pytest.raises(SpecError) as raised:
        teacher_of(f"method.tf_kd_self.teacher={teacher}")
    assert str(raised.value) == (
        "digits-tfkd-self.yaml with --set: method.tf_kd_self.teacher: needs a trained baseline of "
        "the same network; `skdtune export BASELINE -o FOLDER` makes one for "
        "--set method.tf_kd_self.teacher=FOLDER/model.safetensors"
    )


@pytest.mark.parametrize("name", ["missing", "", "x" * 300, "~nobody-of-that-name/x"])
def test_a_teacher_that_cannot_be_read_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    path = name if name.startswith("~") else tmp_path / name
    with pytest.raises(SpecError) as raised:
        teacher_of(f"method.tf_kd_self.teacher={path}")
    message = str(raised.value)
    assert f"method.tf_kd_self.teacher: {Path(path).absolute()} cannot be read (" in message
    assert "--set method.tf_kd_self.teacher_sha256=..." in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "raw", [{}, {"method": None}, {"method": 5}, {"method": {"tf_kd_self": None}}]
)
def test_a_study_that_has_no_teacher_is_left_as_it_is(raw: dict[str, Any]) -> None:
    assert with_teacher(raw, "test") == raw


def test_the_settings_beside_the_teacher_stay(teacher_file: Path) -> None:
    raw = {"seed": 1, "method": {"tf_kd_self": {"teacher": str(teacher_file), "weight": 0.5}}}
    assert with_teacher(raw, "test") == {
        "seed": 1,
        "method": {
            "tf_kd_self": {
                "teacher": str(teacher_file),
                "weight": 0.5,
                "teacher_sha256": CHECKSUM,
            }
        },
    }
