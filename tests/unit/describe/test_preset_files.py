"""Study files: what they extend, how they are laid on each other, and YAML read as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from skdtune.describe import preset_folder
from skdtune.describe.dotted import leaves
from skdtune.describe.preset_folder import list_presets, presets_dir
from skdtune.describe.presets import find, is_family, load_family, load_spec, resolve
from skdtune.describe.spec import StudySpec
from skdtune.errors import SpecError
from skdtune.search.pruners.median import MedianConfig


class Folder:
    """A folder of study files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: dict[str, Any] | str | bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = yaml.safe_dump(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def resolve(self, name: str) -> dict[str, Any]:
        return resolve(find(str(self.path / name)))

    def load(self, content: dict[str, Any] | str | bytes, *overrides: str) -> StudySpec:
        return load_spec(str(self.write("study.yaml", content)), overrides=overrides)


@pytest.fixture
def files(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "studies")


# extends


def test_a_file_is_laid_on_what_it_extends(files: Folder) -> None:
    files.write("parent.yaml", {"optimizer": {"lr": 0.1, "momentum": 0.9}, "seed": 3})
    files.write("child.yaml", {"extends": "parent", "optimizer": {"lr": 0.2}})
    expected = {"optimizer": {"lr": 0.2, "momentum": 0.9}, "seed": 3}
    assert files.resolve("child.yaml") == expected


def test_of_several_parents_the_later_one_wins(files: Folder) -> None:
    files.write("one.yaml", {"seed": 1, "num_trials": 1, "data": {"name": "digits"}})
    files.write("two.yaml", {"seed": 2, "num_trials": 2})
    files.write("child.yaml", {"extends": ["one", "two"], "num_trials": 3})
    expected = {"seed": 2, "num_trials": 3, "data": {"name": "digits"}}
    assert files.resolve("child.yaml") == expected


def test_grandparents_count_too(files: Folder) -> None:
    files.write("grandparent.yaml", {"seed": 1, "num_trials": 1})
    files.write("parent.yaml", {"extends": "grandparent", "seed": 2})
    files.write("child.yaml", {"extends": "parent"})
    assert files.resolve("child.yaml") == {"seed": 2, "num_trials": 1}


def test_a_parent_is_looked_for_beside_the_file_first(files: Folder) -> None:
    files.write("digits-dsr.yaml", {"seed": 77})
    files.write("child.yaml", {"extends": "digits-dsr"})
    assert files.resolve("child.yaml") == {"seed": 77}


def test_a_preset_can_be_extended_from_anywhere(files: Folder) -> None:
    spec = files.load({"extends": "digits-dsr", "num_trials": 5})
    assert spec.num_trials == 5
    assert spec.search == load_spec("digits-dsr").search


def test_a_parent_may_lie_in_another_folder(files: Folder) -> None:
    files.write("below/parent.yaml", {"seed": 5})
    files.write("below/child.yaml", {"extends": "parent.yaml"})
    files.write("top.yaml", {"extends": "below/child"})
    assert files.resolve("top.yaml") == {"seed": 5}


def test_two_branches_may_share_a_parent(files: Folder) -> None:
    files.write("root.yaml", {"seed": 1})
    files.write("one.yaml", {"extends": "root"})
    files.write("two.yaml", {"extends": "root", "num_trials": 2})
    files.write("child.yaml", {"extends": ["one", "two"]})
    assert files.resolve("child.yaml") == {"seed": 1, "num_trials": 2}


def test_a_study_has_a_name_and_a_description_of_its_own(files: Folder) -> None:
    parent = {"extends": "digits-dsr", "name": "parent", "description": "the parent's"}
    files.write("parent.yaml", parent)
    spec = files.load({"extends": "parent"})
    assert spec.name == "study"
    assert spec.description == ""


@pytest.mark.parametrize(
    "chain",
    [["a"], ["a", "b"], ["a", "b", "c"], ["a", "below/../b"], ["a", "../studies/b"]],
    ids=len,
)
def test_a_file_that_extends_itself_is_refused(files: Folder, chain: list[str]) -> None:
    files.write("below/x.yaml", {})
    for child, parent in zip(chain, [*chain[1:], "../studies/a"], strict=True):
        files.write(f"{child}.yaml", {"extends": parent})
    with pytest.raises(SpecError, match=r"^a\.yaml: 'extends' leads back to a\.yaml$"):
        files.resolve("a.yaml")


def test_files_that_extend_each_other_twice_are_laid_out_once_each(files: Folder) -> None:
    # Each on its own would be two to the thirtieth.
    files.write("f29.yaml", {"seed": 29, "num_trials": 7})
    for number in range(29):
        twice = [f"f{number + 1}", f"./f{number + 1}.yaml"]
        files.write(f"f{number}.yaml", {"extends": twice, "seed": number})
    assert files.resolve("f0.yaml") == {"seed": 0, "num_trials": 7}


def test_what_a_study_extends_is_bounded(files: Folder) -> None:
    for number in range(40):
        files.write(f"f{number}.yaml", {"extends": f"f{number + 1}"})
    with pytest.raises(SpecError, match=r"^f33\.yaml: extends: .* more than 32 deep; write some"):
        files.resolve("f0.yaml")
    files.write("leaf.yaml", {"seed": 1})
    files.write("wide.yaml", {"extends": ["leaf"] * 201})
    with pytest.raises(SpecError, match=r"^wide\.yaml: extends: .* more than 200 files"):
        files.resolve("wide.yaml")


def test_a_missing_parent_is_named_together_with_the_child(files: Folder) -> None:
    with pytest.raises(SpecError, match=r"^study\.yaml: extends 'nobody', but there is no such"):
        files.load({"extends": "nobody"})


@pytest.mark.parametrize("extends", [5, None, {"a": 1}, [1], [["digits-dsr"]], True])
def test_parents_are_names(files: Folder, extends: Any) -> None:
    with pytest.raises(SpecError, match=r"^study\.yaml: extends: expected a name or a list"):
        files.load({"extends": extends})


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_no_file(files: Folder, name: str) -> None:
    for wanted in (name, f"./{name}.yaml"):
        with pytest.raises(SpecError, match=r"no study file at|unknown preset"):
            find(wanted)
    with pytest.raises(SpecError, match="there is no such preset or file"):
        files.load({"extends": name})


# Laying one on the other


def test_another_pruner_drops_the_settings_of_the_old_one(files: Folder) -> None:
    study = {"extends": "digits-dsr", "pruner": {"name": "median", "warmup_epochs": 2}}
    assert files.load(study).pruner == MedianConfig(warmup_epochs=2)


def test_the_same_pruner_keeps_the_other_settings(files: Folder) -> None:
    spec = files.load({"extends": "digits-dsr", "pruner": {"min_epochs": 3}})
    preset = load_spec("digits-dsr").pruner.model_dump()
    assert spec.pruner.model_dump() == {**preset, "min_epochs": 3}


def test_another_network_keeps_the_rest_of_the_model(files: Folder) -> None:
    spec = files.load({"extends": "digits-dsr", "model": {"name": "resnet20"}})
    assert (spec.model.name, spec.model.width) == ("resnet20", 8)


def test_a_null_removes_a_searched_parameter(files: Folder) -> None:
    spec = files.load({"extends": "digits-dsr", "search": {"optimizer.lr": None}})
    assert set(spec.search) == set(load_spec("digits-dsr").search) - {"optimizer.lr"}


def test_a_null_switches_a_term_off(files: Folder) -> None:
    search = {path: None for path in load_spec("digits-dsr").search if path.startswith("method")}
    study = {"extends": "digits-dsr", "method": {"dsr": None}, "search": search}
    assert files.load(study).method.dsr is None


def test_a_removed_parameter_can_be_searched_again_below(files: Folder) -> None:
    files.write("parent.yaml", {"extends": "digits-dsr", "search": {"optimizer.lr": None}})
    param = {"type": "float", "low": 0.05, "high": 0.2}
    spec = files.load({"extends": "parent", "search": {"optimizer.lr": param}})
    assert spec.search["optimizer.lr"].describe() == "0.05 to 0.2"


def test_data_are_found_from_wherever_the_worker_starts(
    files: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.path.mkdir()
    monkeypatch.chdir(files.path)
    monkeypatch.setenv("HOME", str(files.path))
    for root in ("images", "~/images"):
        spec = load_spec("imagefolder-dsr", overrides=[f"data.root={root}"])
        assert spec.data.root == str(files.path / "images")


# --set


def test_values_of_set_have_the_types_of_yaml() -> None:
    spec = load_spec(
        "digits-drg",
        overrides=[
            "optimizer.lr=1e-1",
            "optimizer.nesterov=true",
            "data.batch_size=32",
            "data.max_per_class=null",
            "method.drg.stages=[1, 2]",
            "method.drg.align_corners=published",
            "description=a=b, c",
            "search.optimizer.lr.high=3e-1",
            "search.optimizer.weight_decay=null",
        ],
    )
    assert spec.optimizer.lr == 0.1
    assert spec.optimizer.nesterov is True
    assert spec.data.batch_size == 32
    assert spec.data.max_per_class is None
    assert spec.method.drg is not None
    assert spec.method.drg.stages == (1, 2)
    assert spec.search["optimizer.lr"].describe() == "0.01 to 0.3, log"
    assert "optimizer.weight_decay" not in spec.search


def test_the_later_of_two_values_wins() -> None:
    assert load_spec("digits-dsr", overrides=["seed=2", "seed=1"]).seed == 1


@pytest.mark.parametrize("swap", [False, True])
def test_a_kind_and_its_settings_may_come_in_any_order(swap: bool) -> None:
    overrides = ["pruner.name=median", "pruner.warmup_epochs=2"]
    spec = load_spec("digits-dsr", overrides=overrides[::-1] if swap else overrides)
    assert spec.pruner == MedianConfig(warmup_epochs=2)


def test_name_and_number_of_trials_can_be_given() -> None:
    spec = load_spec("digits-dsr", name="mine", num_trials=3, overrides=["num_trials=9"])
    assert (spec.name, spec.num_trials) == ("mine", 3)


KEYS = [
    *sorted(leaves(StudySpec)),
    "search.optimizer.lr",
    "search.optimizer.lr.low",
    "search.method.drg.stages.of",
    "search.method.drg.teacher.when",
    "data",
    "pruner",
    "method.drg",
    "method.label",
]
# fmt: off
YAML_VALUES = [
    "1", "0", "-1", "1e3", ".5", ".inf", ".nan", "null", "~", "true", "no", "[]", "{}", "[1]",
    "[[1]]", "{a: 1}", "{1: 2}", "2001-01-01", "1:30", "0x1f", "median", "asha", "published",
    "resnet20", "{name: asha}", "{type: int, low: 1, high: 2}",
]
# fmt: on
VALUES = st.sampled_from(YAML_VALUES)


@given(st.text(max_size=20))
@example("optimizer.lr")
@example("=1")
@example("optimizer.lr==1")
@example(".=1")
@example("search.=1")
@example("search.optimizer.lr.=1")
def test_no_text_makes_set_fail_otherwise_than_in_one_line(text: str) -> None:
    _load_or_refuse(text)


@given(st.sampled_from(KEYS), VALUES | st.text(max_size=12))
@example("optimizer.lr", "2001-99-99")
@example("optimizer.lr", "&a [*a]")
@example("optimizer.lr", "{[1]: 2}")
@example("optimizer.lr", "{2001-01-01: 2}")
@example("optimizer.lr", "!!int x")
@example("optimizer.lr", "!!timestamp x")
@example("optimizer.lr", "!!bool x")
@example("optimizer.lr", "!!python/object/apply:os.system [exit 3]")
@example("optimizer.lr", "9" * 5000)
@example("optimizer.lr", "[" * 1500)
@example("search", "5")
@example("search", "[optimizer.lr]")
@example("description", '"\\ud800"')
@example("pruner.reduction_factor", "1" + "0" * 400)
@example("budget.epochs", "1" + "0" * 12)
def test_no_value_makes_set_fail_otherwise_than_in_one_line(key: str, value: str) -> None:
    _load_or_refuse(f"{key}={value}")


def _load_or_refuse(override: str) -> None:
    """Anything but a SpecError is an error of the test that asks."""
    try:
        spec = load_spec("digits-drg-dsr", overrides=[override])
    except SpecError as error:
        message = str(error)
    else:
        message = f"--set {spec.name}"
    assert message.startswith(("--set ", "digits-drg-dsr.yaml with --set: "))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr", "--set optimizer.lr: expected key=value, for example optimizer.lr=0.05"),
        ("optimizer.lrr=1", "--set optimizer.lrr: unknown key; did you mean 'optimizer.lr'?"),
        ("lr=1", "--set lr: unknown key; did you mean 'optimizer.lr'?"),
        ("temperature=1", "--set temperature: unknown key; did you mean 'method.d"),
        ("optimizer=1", "digits-drg-dsr.yaml with --set: optimizer: received 1"),
        (
            "search.optimizer.lrr.low=1",
            "--set search.optimizer.lrr.low: no field 'optimizer.lrr'; "
            "did you mean 'optimizer.lr'?",
        ),
        (
            "search.optimizer.lr.lwo=1",
            "--set search.optimizer.lr.lwo: unknown key; did you mean 'low'?",
        ),
        ("zzz=1", "--set zzz: unknown key; `create-study --dry-run` prints all keys"),
        ("seed=[", "--set seed=[: the value is not valid YAML"),
    ],
)
def test_a_wrong_set_is_refused_with_key_and_remedy(override: str, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec("digits-drg-dsr", overrides=[override])
    assert str(raised.value).startswith(message)


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E+2", 100.0),
        ("-2e3", -2000.0),
        ("1.5e2", 150.0),
        (".5e1", 5.0),
        ("5e-4", 5e-4),
        ("0.1", 0.1),
        ("3", 3),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1e3x", "1e3x"),
        ("'1e3'", "1e3"),
    ],
)
def test_a_number_with_an_exponent_is_a_number(files: Folder, text: str, value: Any) -> None:
    files.write("study.yaml", f"x: {text}\n")
    read = files.resolve("study.yaml")["x"]
    assert read == value
    assert type(read) is type(value)


@given(st.floats(min_value=1.5, allow_infinity=False))
def test_any_number_is_read_as_python_writes_it(number: float) -> None:
    lr = f"search.optimizer.lr={{type: float, low: 1e-2, high: {number!r}}}"
    spec = load_spec("digits-baseline", overrides=[lr])
    assert spec.search["optimizer.lr"].examples() == (0.01, number)


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("seed: 1\nname: x\nseed: 2\n", 3, "seed"),
        ("extends: digits-dsr\noptimizer:\n  lr: 0.1\n  lr: 0.2\n", 4, "lr"),
        ("data: {name: digits, name: cifar10}\n", 1, "name"),
    ],
)
def test_a_doubled_key_is_refused_with_its_line(
    files: Folder, text: str, line: int, key: str
) -> None:
    with pytest.raises(SpecError, match=rf"^study\.yaml, line {line}: key '{key}' stands twice$"):
        files.load(text)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system",
        "!!python/object/apply:os.mkdir",
        "!!python/name:os.mkdir",
    ],
)
def test_a_tag_that_would_run_a_program_is_refused_and_not_run(
    files: Folder, tmp_path: Path, tag: str
) -> None:
    made = tmp_path / "made"
    command = f"mkdir {made}" if tag.endswith("system") else str(made)
    with pytest.raises(SpecError, match=r"^study\.yaml, line 2: .*python"):
        files.load(f"extends: digits-dsr\ndescription: {tag} ['{command}']\n")
    with pytest.raises(SpecError, match=r"^--set description=!!python"):
        load_spec("digits-dsr", overrides=[f"description={tag} ['{command}']"])
    assert not made.exists()


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "5\n", "text\n", "1: a\n", "null\n", "---\n"])
def test_a_file_that_is_no_mapping_is_refused(files: Folder, text: str) -> None:
    with pytest.raises(SpecError, match=r"^study\.yaml: expected a mapping of keys to values$"):
        files.load(text)


@pytest.mark.parametrize(
    "content",
    [b"a: \xff\xfe\n", b"a: b\0c\n", b"a: 2001-99-99\n", b"? [1]\n: 2\n", b"a: " + b"x" * 300_000],
    ids=["not utf-8", "null byte", "no date", "list as key", "large"],
)
def test_a_file_that_cannot_be_read_is_refused_by_its_path(files: Folder, content: bytes) -> None:
    with pytest.raises(SpecError, match=r"study\.yaml: cannot be read as YAML: ") as raised:
        files.load(content)
    assert str(files.path / "study.yaml") in str(raised.value)
    assert "\n" not in str(raised.value)


#: Ten times ten times ten ..., and each of the ten is an alias.
LAUGHS = "a0: &a0 [1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
#: Every alias is one level more.
STAIRS = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (LAUGHS, 6, "more than 100000 values, aliases counted"),
        (STAIRS, 31, "more than 32 levels of nesting"),
        ("seed: 1\ndata: " + "[" * 1500, 2, "more than 32 levels of nesting"),
        ("seed: 1\ndata: " + "{a: " * 1500, 2, "more than 32 levels of nesting"),
        ("a: 1\nb: &b [*b]", 2, "an alias stands for what it is a part of"),
        ("a: 1\nb: &b {c: {d: *b}}", 2, "an alias stands for what it is a part of"),
        ("seed: 1" + ":30" * 50_000, 1, "a number of more than 1000 characters"),
        ("seed: " + "1" * 5000, 1, "a number of more than 1000 characters"),
    ],
    ids=["laughs", "stairs", "lists", "mappings", "itself", "its part", "hours", "digits"],
)
def test_yaml_that_stands_for_too_much_is_refused_with_its_line(
    files: Folder, text: str, line: int, problem: str
) -> None:
    with pytest.raises(SpecError, match=rf"^study\.yaml, line {line}: {problem}$"):
        files.load(text)


def test_a_value_of_set_that_stands_for_too_much_is_refused() -> None:
    laughs = f"{{{', '.join(LAUGHS.splitlines())}}}"
    for value in (laughs, "[" * 1500, "&a [*a]", "1" * 5000):
        with pytest.raises(SpecError, match=r"^--set data: .{,60}, which is more than is read$"):
            load_spec("digits-dsr", overrides=[f"data={value}"])


def test_an_alias_that_stands_for_little_is_read(files: Folder) -> None:
    text = "extends: digits-dsr\nenqueue: [&one {optimizer.lr: 0.05}, *one]\n"
    assert files.load(text).enqueue == ({"optimizer.lr": 0.05},) * 2


def test_a_text_that_is_nearly_a_number_is_read_in_one_go(files: Folder) -> None:
    # Its time grew with the square of the length: minutes, for so long a one.
    text = "1" * 200_000 + "x"
    assert files.load(f"extends: digits-dsr\ndescription: {text}\n").description == text


def test_a_mistake_in_the_syntax_is_refused_with_its_line(files: Folder) -> None:
    with pytest.raises(SpecError, match=r"^study\.yaml, line 3: "):
        files.load("seed: 1\nname: [\n}\n")


# Presets


def test_presets_are_listed_by_name() -> None:
    names = [preset.name for preset in list_presets()]
    assert names == sorted(names)
    assert {"digits-drg-dsr", "cifar100-compare"} <= set(names)
    assert not {"recipe", "compare", "digits", "drg"} & set(names)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("cifar100-drs", "cifar100-dsr"),
        ("digit-dsr", "digits-dsr"),
        ("CIFAR10-drg", "cifar10-drg"),
        ("imagefolder_ls", "imagefolder-ls"),
    ],
)
def test_an_unknown_preset_is_refused_with_the_nearest(misspelt: str, meant: str) -> None:
    with pytest.raises(SpecError) as raised:
        find(misspelt)
    expected = f"unknown preset '{misspelt}'; did you mean '{meant}'? `skdtune studies` lists them"
    assert str(raised.value) == expected


def test_an_unknown_preset_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(SpecError, match=r"^unknown preset 'zzzz'; `skdtune studies` lists them$"):
        find("zzzz")


def test_a_missing_file_is_refused_by_its_path() -> None:
    with pytest.raises(SpecError, match=r"^no study file at missing\.yaml$"):
        find("missing.yaml")


def test_a_file_in_the_current_folder_does_not_hide_a_preset(
    files: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("digits-dsr.yaml", {"seed": 5})
    monkeypatch.chdir(files.path)
    assert "seed" not in find("digits-dsr").content
    assert find("digits-dsr.yaml").content == {"seed": 5}


def test_a_file_may_have_the_name_of_the_preset_that_it_extends(files: Folder) -> None:
    path = files.write("digits-dsr.yaml", {"extends": "digits-dsr", "seed": 5})
    assert load_spec(str(path)).search == load_spec("digits-dsr").search
    assert load_spec(str(path)).seed == 5


def test_a_preset_may_be_extended_by_the_name_of_its_file(files: Folder) -> None:
    assert files.load({"extends": "digits-dsr.yaml"}).search == load_spec("digits-dsr").search


@pytest.mark.parametrize(
    "extends",
    [["data/digits", "methods/dsr"], ["_base/digits", "_base/dsr"], "digits-dsr"],
    ids=["parts", "their old names", "preset"],
)
def test_a_file_may_extend_the_parts_of_a_preset(files: Folder, extends: str | list[str]) -> None:
    spec = load_spec(str(files.write("own.yaml", {"extends": extends})), name="digits-dsr")
    preset = load_spec("digits-dsr")
    assert spec.model_dump(exclude={"description"}) == preset.model_dump(exclude={"description"})


@pytest.mark.parametrize("part", ["recipe", "_base/recipe"])
def test_the_recipe_can_be_extended(files: Folder, part: str) -> None:
    files.write("own.yaml", {"extends": part})
    assert files.resolve("own.yaml")["optimizer"]["milestones"] == [0.3, 0.6, 0.8]


@pytest.mark.parametrize("name", ["recipe", "compare", "digits", "drg", "drg-digits"])
def test_a_part_is_no_preset(name: str) -> None:
    with pytest.raises(SpecError, match=f"^unknown preset '{name}'; "):
        find(name)


# A folder of presets


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Put a small folder of presets in the place of the shipped ones."""
    folder = Folder(tmp_path / "shipped")
    monkeypatch.setattr(preset_folder, "presets_dir", lambda: folder.path)
    folder.write("data/digits.yaml", "description: Digits\ndata: {name: digits}\n")
    folder.write("methods/plain.yaml", "description: plain\nmodel: {name: resnet8}\n")
    smooth = "extends: methods/plain\nmethod: {label: {name: label_smoothing, smoothing: 0.1}}"
    folder.write("methods/ls.yaml", f"description: smooth\n{smooth}\n")
    folder.write("compare.yaml", "description: both\ncompare: [plain, ls]\n")
    return folder


def names_and_descriptions() -> dict[str, str]:
    return {preset.name: preset.description for preset in list_presets()}


def test_one_file_makes_the_presets_of_a_data_set(shipped: Folder) -> None:
    before = set(names_and_descriptions())
    shipped.write("data/cifar-10.yaml", "description: CIFAR\ndata: {name: cifar10}\n")
    added = {k: v for k, v in names_and_descriptions().items() if k not in before}
    assert added == {
        "cifar-10-compare": "CIFAR: both",
        "cifar-10-ls": "CIFAR: smooth",
        "cifar-10-plain": "CIFAR: plain",
    }
    assert load_spec("cifar-10-ls").description == "CIFAR: smooth"
    assert [s.name for s in load_family("cifar-10-compare")] == [
        "cifar-10-compare-plain",
        "cifar-10-compare-ls",
    ]


def test_one_file_makes_the_presets_of_a_method(shipped: Folder) -> None:
    before = set(names_and_descriptions())
    shipped.write("methods/ls-soft.yaml", "description: softer\nextends: methods/ls\n")
    assert set(names_and_descriptions()) - before == {"digits-ls-soft"}
    assert load_spec("digits-ls-soft").method == load_spec("digits-ls").method


def test_values_of_one_pair_are_laid_on_that_pair_alone(shipped: Folder) -> None:
    label = "{method: {label: {smoothing: 0.2}}, budget: {epochs: 7}}"
    text = f"description: Images\ndata: {{name: cifar10}}\nmethods:\n  ls: {label}\n"
    shipped.write("data/images.yaml", text)
    assert load_spec("images-ls").method.label.model_dump()["smoothing"] == 0.2
    assert load_spec("images-ls").budget.epochs == 7
    assert load_spec("digits-ls").method.label.model_dump()["smoothing"] == 0.1
    assert load_spec("images-plain").budget == load_spec("digits-plain").budget


def test_a_tuned_preset_is_a_preset_by_the_name_of_its_file(shipped: Folder) -> None:
    tuned = {
        "extends": "digits-ls",
        "description": "Digits: smooth, tuned",
        "optimizer": {"lr": 0.03},
    }
    shipped.write("tuned/digits-ls-tuned.yaml", tuned)
    shipped.write("tuned/digits-plain.yaml", {"extends": "digits-ls"})
    assert names_and_descriptions() == {
        "digits-compare": "Digits: both",
        "digits-ls": "Digits: smooth",
        "digits-ls-tuned": "Digits: smooth, tuned",
        "digits-plain": "Digits: plain",
    }
    spec = load_spec("digits-ls-tuned")
    assert (spec.name, spec.optimizer.lr) == ("digits-ls-tuned", 0.03)
    assert spec.method == load_spec("digits-ls").method
    # A file with the name of a composed preset does not take its place.
    assert load_spec("digits-plain").method != spec.method
    assert not is_family("digits-ls-tuned")
    with pytest.raises(SpecError, match=r"^digits-ls-tuned\.yaml with --set: optimizer\.lr: "):
        load_spec("digits-ls-tuned", overrides=["optimizer.lr=-1"])


def test_a_preset_may_be_named_as_a_file_of_the_presets_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_name = load_spec("digits-drg")
    assert load_spec(str(presets_dir() / "digits-drg.yaml")) == by_name
    monkeypatch.chdir(presets_dir().parent)
    assert load_spec(f"{presets_dir().name}/digits-drg.yaml").digest == by_name.digest
    with pytest.raises(SpecError, match=r"^no study file at .*digits-none\.yaml$"):
        load_spec(str(presets_dir() / "digits-none.yaml"))
