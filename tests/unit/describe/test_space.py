"""The search space: ranges, choices, and parameters that other parameters switch off."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdtune.describe.dotted import flatten, put
from skdtune.describe.preset_folder import list_presets
from skdtune.describe.presets import is_family, load_spec
from skdtune.describe.space import (
    AnyParam,
    Choice,
    Condition,
    FloatRange,
    IntRange,
    Scalar,
    SearchSpace,
    StageSubsets,
    sample,
    sampling_order,
)
from skdtune.describe.spec import StudySpec, parse
from skdtune.errors import SpecError

PRESETS = [preset.name for preset in list_presets() if not is_family(preset.name)]


@lru_cache
def load(preset: str) -> StudySpec:
    return load_spec(preset, overrides=needed(preset))


def needed(preset: str) -> list[str]:
    """Return settings for what a preset cannot bring along: a folder of images, a teacher."""
    settings = ["data.root=/images"] if preset.startswith(("imagefolder", "imagenet1k")) else []
    if preset.endswith("tfkd-self"):
        teacher = "method.tf_kd_self.teacher"
        settings += [f"{teacher}=/teacher.safetensors", f"{teacher}_sha256={'a' * 64}"]
    return settings


class Drawn:
    """A suggester that hypothesis chooses the values of; knows what it was asked."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.asked: list[str] = []

    def _draw(self, name: str, strategy: st.SearchStrategy[Any]) -> Any:
        assert name not in self.asked, f"{name} was asked for twice"
        self.asked.append(name)
        return self._data.draw(strategy, label=name)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        value: float = self._draw(name, st.floats(low, high))
        return value

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        value: int = self._draw(name, st.integers(low, high))
        return value

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._draw(name, st.sampled_from(list(choices)))


class Always:
    """A suggester that gives each parameter a value fixed beforehand, else its first or lowest."""

    def __init__(self, **fixed: Scalar) -> None:
        self._fixed = {name.replace("__", "."): value for name, value in fixed.items()}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return float(self._fixed.get(name, low))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self._fixed.get(name, low))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._fixed.get(name, choices[0])


# Every preset


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=20)
@given(data=st.data(), number=st.integers(0, 10_000))
def test_whatever_is_sampled_is_a_valid_configuration(
    preset: str, data: st.DataObject, number: int
) -> None:
    spec = load(preset)
    suggester = Drawn(data)
    params = sample(spec.search, suggester)
    config = flatten(spec.trial_config(params, number).model_dump(mode="json"))
    assert suggester.asked == list(params)
    for path, value in params.items():
        assert spec.search[path].contains(value)
        assert _as_param(config[path]) == value
    # What is not searched is what the base configuration says.
    base = flatten(spec.base_config().model_dump(mode="json"))
    assert {p: v for p, v in config.items() if p not in params and p != "seed"} == {
        p: v for p, v in base.items() if p not in params and p != "seed"
    }


def _as_param(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, list) else value


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=20)
@given(data=st.data())
def test_exactly_what_no_choice_switches_off_is_sampled(preset: str, data: st.DataObject) -> None:
    space = load(preset).search
    params = sample(space, Drawn(data))
    for path, param in space.items():
        assert (path in params) == param.is_active(params)


@pytest.mark.parametrize("preset", [name for name in PRESETS if "drg" in name])
def test_the_form_of_the_teacher_is_sampled_only_when_several_stages_teach(preset: str) -> None:
    space = load(preset).search
    alone = sample(space, Always(method__drg__stages="1"))
    together = sample(space, Always(method__drg__stages="1+2"))
    assert "method.drg.teacher" not in alone
    assert together["method.drg.teacher"] == "mean_probs"


# Ranges and choices


@given(st.floats(-100, 100), st.floats(-100, 100), st.booleans())
def test_a_range_of_numbers_holds_its_ends_and_needs_an_order(
    low: float, high: float, log: bool
) -> None:
    raw = {"type": "float", "low": low, "high": high, "log": log}
    if low < high and (low > 0 or not log):
        found = parse(FloatRange, raw, "test")
        assert found.examples() == (low, high)
        assert found.contains(low)
        assert found.contains(high)
        assert not found.contains(low - 1)
        assert not found.contains(high + 1)
        return
    with pytest.raises(SpecError, match="low"):
        parse(FloatRange, raw, "test")


@given(st.integers(-100, 100), st.integers(-100, 100), st.booleans())
def test_a_range_of_whole_numbers_holds_its_ends_and_needs_an_order(
    low: int, high: int, log: bool
) -> None:
    raw = {"type": "int", "low": low, "high": high, "log": log}
    if low < high and (low > 0 or not log):
        found = parse(IntRange, raw, "test")
        assert found.examples() == (low, high)
        assert found.contains(low)
        assert not found.contains(high + 1)
        assert not found.contains(low + 0.5)
        return
    with pytest.raises(SpecError, match="low"):
        parse(IntRange, raw, "test")


@pytest.mark.parametrize("value", [True, "0.5", None, [0.5]])
def test_only_numbers_lie_in_a_range_of_numbers(value: Any) -> None:
    assert not FloatRange(low=0, high=1).contains(value)
    assert not IntRange(type="int", low=0, high=1).contains(value)


def test_a_choice_holds_its_values_and_needs_one() -> None:
    choice = Choice(type="choice", choices=("row", "batch_mean"))
    assert choice.examples() == ("row", "batch_mean")
    assert choice.contains("row")
    assert not choice.contains("column")
    with pytest.raises(SpecError, match="choices"):
        parse(Choice, {"type": "choice", "choices": []}, "test")


@given(st.integers(1, 6))
def test_the_subsets_of_stages_are_all_but_the_empty_one(num: int) -> None:
    stages = tuple(range(1, num + 1))
    choices = StageSubsets(type="stages", of=stages).examples()
    assert len(set(choices)) == len(choices) == 2**num - 1
    for choice in choices:
        chosen = [int(stage) for stage in str(choice).split("+")]
        assert chosen == sorted(set(chosen))
        assert set(chosen) <= set(stages)


@pytest.mark.parametrize(
    ("param", "text"),
    [
        (FloatRange(low=0.01, high=0.5, log=True), "0.01 to 0.5, log"),
        (FloatRange(low=0, high=1), "0 to 1"),
        (IntRange(type="int", low=1, high=8), "1 to 8, whole"),
        (Choice(type="choice", choices=("a", 1, True)), "a | 1 | True"),
        (StageSubsets(type="stages", of=(1, 2)), "1 | 2 | 1+2"),
    ],
)
def test_a_parameter_describes_itself(param: AnyParam, text: str) -> None:
    assert param.describe() == text


@pytest.mark.parametrize(
    "param",
    [
        FloatRange(low=0.5, high=2),
        IntRange(type="int", low=2, high=9),
        Choice(type="choice", choices=("b", "a")),
        StageSubsets(type="stages", of=(2, 3)),
    ],
)
@given(data=st.data())
def test_a_parameter_asks_for_what_it_holds(param: AnyParam, data: st.DataObject) -> None:
    assert param.contains(param.suggest("x", Drawn(data)))


# Conditions


def test_a_parameter_waits_for_one_of_the_values_it_names() -> None:
    param = FloatRange(low=0, high=1, when={"pairing": ("row", "column")})
    assert param.is_active({"pairing": "row"})
    assert not param.is_active({"pairing": "batch_mean"})


@pytest.mark.parametrize(("stages", "active"), [("1", False), ("1+2", True), ("1+2+3", True)])
def test_a_parameter_waits_for_enough_stages(stages: str, active: bool) -> None:
    param = FloatRange(low=0, high=1, when={"stages": Condition(min_size=2)})
    assert param.is_active({"stages": stages}) is active


def test_a_parameter_is_off_when_what_it_waits_for_is_off() -> None:
    space: SearchSpace = {
        "third": FloatRange(low=0, high=1, when={"second": ("x",)}),
        "second": Choice(type="choice", choices=("x",), when={"first": (True,)}),
        "first": Choice(type="choice", choices=(True, False)),
    }
    assert sample(space, Always(first=False)) == {"first": False}
    assert list(sample(space, Always(first=True))) == ["first", "second", "third"]


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces whose conditions go in no circle, written down in any order."""
    space: SearchSpace = {}
    for name in "abcdef"[: draw(st.integers(1, 6))]:
        parents = draw(st.lists(st.sampled_from(sorted(space)), unique=True)) if space else []
        wanted = st.sampled_from([("x",), ("y",), ("x", "y")])
        when: dict[str, tuple[Scalar, ...] | Condition] = {p: draw(wanted) for p in parents}
        space[name] = Choice(type="choice", choices=("x", "y"), when=when)
    return {name: space[name] for name in draw(st.permutations(sorted(space)))}


@given(spaces())
def test_a_parameter_comes_after_those_its_condition_asks_about(space: SearchSpace) -> None:
    order = sampling_order(space)
    assert sorted(order) == sorted(space)
    for path, param in space.items():
        assert all(order.index(parent) < order.index(path) for parent in param.when)


@given(spaces(), st.data())
def test_a_parameter_that_is_switched_off_is_never_asked_for(
    space: SearchSpace, data: st.DataObject
) -> None:
    suggester = Drawn(data)
    params = sample(space, suggester)
    assert set(suggester.asked) == set(params)
    for path, param in space.items():
        alive = all(params.get(parent) in wanted for parent, wanted in _wanted(param))
        assert (path in params) == alive


def _wanted(param: AnyParam) -> list[tuple[str, tuple[Scalar, ...]]]:
    return [(path, w) for path, w in param.when.items() if isinstance(w, tuple)]


def test_conditions_that_go_in_a_circle_are_refused() -> None:
    space: SearchSpace = {
        "a": FloatRange(low=0, high=1, when={"b": ("x",)}),
        "b": Choice(type="choice", choices=("x",), when={"a": (1,)}),
    }
    with pytest.raises(ValueError, match=r"^a: its 'when' leads back to itself"):
        sampling_order(space)


def test_a_condition_on_no_field_at_all_is_refused() -> None:
    with pytest.raises(SpecError, match=r"its 'when' names no field 'optimizer\.lrr'"):
        load_spec("digits-drg", overrides=["search.method.drg.teacher.when={optimizer.lrr: [1]}"])


@pytest.mark.parametrize(("stages", "active"), [("[2]", False), ("[1, 2]", True)])
def test_a_condition_on_a_fixed_field_is_judged_by_its_base_value(
    stages: str, active: bool
) -> None:
    overrides = [f"method.drg.stages={stages}", "search.method.drg.stages=null"]
    spec = load_spec("digits-drg", overrides=overrides)
    assert ("method.drg.teacher" in spec.base_params()) is active


def test_a_condition_in_a_file_is_read_and_checked() -> None:
    spec = load("digits-drg")
    raw = spec.model_dump(mode="json")
    wrong = put(raw, "search", {"optimizer.lr": {"when": {"optimizer.momento": [0.9]}}})
    with pytest.raises(SpecError, match=r"optimizer\.lr: its 'when' names no field 'optimizer"):
        parse(StudySpec, wrong, "test")
