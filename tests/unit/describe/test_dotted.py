"""Laws of nested settings, and hints for misspelt words."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdtune.describe.config import TrialConfig
from skdtune.describe.dotted import (
    did_you_mean,
    field_names,
    flatten,
    leaves,
    merge,
    nearest,
    nest,
    put,
)
from skdtune.describe.spec import StudySpec
from skdtune.methods.drg.settings import DrgConfig

Nested = dict[str, Any]

# Words with a meaning of their own ("name", "type", "search") have tests of their own below.
words = st.sampled_from(["lr", "drg", "stages", "a", "b", "c"])
values = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
settings = st.recursive(
    st.dictionaries(words, values, max_size=4),
    lambda inner: st.dictionaries(words, values | inner, max_size=4),
    max_leaves=12,
)


@given(settings)
def test_merging_with_nothing_changes_nothing(base: Nested) -> None:
    assert merge(base, {}) == base
    assert merge({}, base) == base


@given(settings)
def test_merging_something_with_itself_changes_nothing(base: Nested) -> None:
    assert merge(base, base) == base


@given(settings, settings)
def test_what_is_laid_on_top_wins(base: Nested, over: Nested) -> None:
    merged = flatten(merge(base, over))
    for path, value in flatten(over).items():
        if value != {}:
            assert merged[path] == value


@given(settings, settings)
def test_what_the_top_does_not_mention_stays(base: Nested, over: Nested) -> None:
    above = flatten(over)
    merged = flatten(merge(base, over))
    for path, value in flatten(base).items():
        if not any(_on_one_line(path, other) for other in above):
            assert merged[path] == value


def _on_one_line(path: str, other: str) -> bool:
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


@given(settings, settings)
def test_merging_leaves_both_sides_alone(base: Nested, over: Nested) -> None:
    before = copy.deepcopy((base, over))
    merge(base, over)
    assert (base, over) == before


@given(settings)
def test_flat_settings_put_back_one_by_one_are_the_same_settings(nested: Nested) -> None:
    rebuilt: Nested = {}
    for path, value in flatten(nested).items():
        rebuilt = put(rebuilt, path, value)
    assert rebuilt == nested


@given(settings, st.lists(words, min_size=1, max_size=4), st.integers())
def test_a_value_that_was_put_is_found_at_its_path(
    base: Nested, parts: list[str], value: int
) -> None:
    path = ".".join(parts)
    after = flatten(put(base, path, value))
    assert after[path] == value
    before = {p: v for p, v in flatten(base).items() if not _on_one_line(p, path)}
    assert {p: v for p, v in after.items() if p != path} == before


def test_an_empty_mapping_is_a_leaf() -> None:
    assert flatten({"a": {}, "b": {"c": 1}}) == {"a": {}, "b.c": 1}


@pytest.mark.parametrize("mark", ["name", "type"])
def test_a_section_of_another_kind_replaces_the_old_one_whole(mark: str) -> None:
    old = {"pruner": {mark: "median", "num_startup_trials": 5}}
    assert merge(old, {"pruner": {mark: "asha"}}) == {"pruner": {mark: "asha"}}


@pytest.mark.parametrize("mark", ["name", "type"])
def test_a_section_of_the_same_kind_is_merged(mark: str) -> None:
    old = {"pruner": {mark: "asha", "min_epochs": 2}}
    new = {"pruner": {mark: "asha", "reduction_factor": 4}}
    both = {"pruner": {mark: "asha", "min_epochs": 2, "reduction_factor": 4}}
    assert merge(old, new) == both


@pytest.mark.parametrize("section", ["data", "model"])
def test_data_and_model_keep_their_settings_under_another_name(section: str) -> None:
    merged = merge({section: {"name": "old", "width": 8}}, {section: {"name": "new"}})
    assert merged == {section: {"name": "new", "width": 8}}


def test_a_null_replaces_a_section() -> None:
    assert merge({"drg": {"weight": 1}}, {"drg": None}) == {"drg": None}


@pytest.mark.parametrize(
    ("path", "nested"),
    [
        ("seed", {"seed": 1}),
        ("method.drg.weight", {"method": {"drg": {"weight": 1}}}),
        ("search.optimizer.lr", {"search": {"optimizer.lr": 1}}),
        ("search.optimizer.lr.low", {"search": {"optimizer.lr": {"low": 1}}}),
        ("search.method.drg.stages.of", {"search": {"method.drg.stages": {"of": 1}}}),
        ("search.low", {"search": {"low": 1}}),
    ],
)
def test_a_searched_parameter_is_one_key(path: str, nested: Nested) -> None:
    assert nest(path, 1) == nested


@pytest.mark.parametrize("path", sorted(leaves(StudySpec)))
def test_a_key_with_two_letters_swapped_is_recognised(path: str) -> None:
    middle = len(path) // 2
    misspelt = path[: middle - 1] + path[middle] + path[middle - 1] + path[middle + 1 :]
    assert nearest(misspelt, leaves(StudySpec)) == path


def test_nothing_is_suggested_for_a_word_like_no_other() -> None:
    assert nearest("zzz", ["weight", "temperature"]) is None


@given(st.text(max_size=8), st.lists(st.text(max_size=8), max_size=5))
def test_a_suggestion_is_one_of_the_options(word: str, options: list[str]) -> None:
    assert nearest(word, options) in [None, *options]


def test_a_hint_names_the_nearest_word_and_all_of_a_few() -> None:
    hint = did_you_mean("temprature", ["weight", "temperature"])
    assert hint == "did you mean 'temperature'? (allowed: temperature, weight)"


def test_a_hint_does_not_list_a_hundred_words() -> None:
    hint = did_you_mean("?", [f"word{index:03d}" for index in range(100)])
    assert hint.count(",") == 16
    assert hint.endswith(", ...)")


def test_leaves_are_all_fields_of_a_trial() -> None:
    drg = {f"method.drg.{name}" for name in DrgConfig.model_fields}
    found = leaves(TrialConfig)
    assert drg <= found
    assert {"seed", "data.name", "model.width", "optimizer.lr", "budget.epochs"} <= found
    # The fields of every kind of label term, not only of the default one.
    assert {"method.label.name", "method.label.smoothing"} <= found
    assert not found & {"data", "method", "method.drg"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((), set(StudySpec.model_fields)),
        (("method", "drg"), set(DrgConfig.model_fields)),
        (("pruner", "asha"), {"name", "min_epochs", "reduction_factor"}),
        (("method", "label", "label_smoothing"), {"name", "smoothing"}),
        (
            ("search", "optimizer.lr", "float"),
            {"type", "low", "high", "log", "when", "reason"},
        ),
        (("search", "method.drg.stages", "stages"), {"type", "of", "when", "reason"}),
    ],
)
def test_the_keys_allowed_in_a_section_are_those_of_its_kind(
    path: tuple[str, ...], expected: set[str]
) -> None:
    assert field_names(StudySpec, path) == expected
