"""Terms that must share their batches, what an epoch of them costs, and what fits to what."""

from __future__ import annotations

from itertools import combinations
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from method_cases import DEFAULTS, LABEL_TERMS

from skdtune.describe.config import BudgetConfig, MethodConfig, TrialConfig
from skdtune.describe.dotted import put
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec, parse, spec_from_json
from skdtune.describe.term_config import BatchPlanName
from skdtune.errors import SpecError

BASE: dict[str, Any] = {
    "data": {"name": "digits", "batch_size": 64},
    "model": {"name": "resnet18"},
}

#: The terms that need a batch plan of their own, and those that go along with any of them.
PLANNED = [name for name, v in DEFAULTS.items() if v.settings.batch_plan != "plain"]
PLAIN = [name for name, v in DEFAULTS.items() if v.settings.batch_plan == "plain"]

PAIRS = list(combinations(PLANNED, 2))

#: What an image of an epoch costs that every batch plan makes of it, beside companions.
COSTS = {
    "plain": 1,
    "indexed": 1,
    "class_pairs": 2,
    "groups": 1,
    "two_views": 2,
    "two_views_joint": 2,
}


def field_of(name: str) -> str:
    """Return the key under ``method`` of a term."""
    return "label" if name in LABEL_TERMS else name


def raw(name: str, **changes: Any) -> dict[str, Any]:
    """Return the settings of a term as a study file has them."""
    return {field_of(name): DEFAULTS[name].settings.model_dump(mode="json") | changes}


def cost_of(name: str) -> int:
    settings = DEFAULTS[name].settings
    return COSTS[settings.batch_plan] + settings.companions


def read_method(*parts: dict[str, Any]) -> MethodConfig:
    whole = {name: settings for part in parts for name, settings in part.items()}
    return parse(MethodConfig, whole, "test")


def read(**changes: Any) -> TrialConfig:
    whole = BASE
    for path, value in changes.items():
        whole = put(whole, path.replace("__", "."), value)
    return parse(TrialConfig, whole, "test")


# Batch plans


def test_every_batch_plan_has_a_price_and_is_needed_by_a_term() -> None:
    assert set(COSTS) == set(get_args(BatchPlanName))
    assert {DEFAULTS[name].settings.batch_plan for name in DEFAULTS} == set(COSTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_term_names_the_batches_that_it_needs(name: str) -> None:
    method = read_method(raw(name))
    assert method.batch_plan == DEFAULTS[name].settings.batch_plan
    assert method.images_per_anchor == cost_of(name)


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("other", [name for name in PLAIN if name not in LABEL_TERMS])
def test_the_others_go_along_with_it(name: str, other: str) -> None:
    method = read_method(raw(other), raw(name))
    assert method.batch_plan == DEFAULTS[name].settings.batch_plan
    assert method.images_per_anchor == cost_of(name)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_terms_that_cannot_share_their_batches_are_refused(one: str, other: str) -> None:
    if field_of(one) == field_of(other):
        pytest.skip("two label terms have no method in common")
    plans = {name: DEFAULTS[name].settings.batch_plan for name in (one, other)}
    if plans[one] == plans[other] and cost_of(one) == cost_of(other):
        assert read(method=raw(one) | raw(other)).method.batch_plan == plans[one]
        return
    with pytest.raises(SpecError) as raised:
        read(method=raw(one) | raw(other))
    needs = [f"{field_of(name)} needs {plan}" for name, plan in plans.items()]
    assert str(raised.value) == (
        f"test: method: these cannot share their batches: {', '.join(needs)}; "
        "switch off all but one"
    )


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_weight_of_zero_asks_for_no_batches(one: str, other: str) -> None:
    off = raw(one, weight=0.0)
    assert read_method(off).batch_plan == "plain"
    method = read_method(off, raw(other))
    assert method.batch_plan == DEFAULTS[other].settings.batch_plan
    assert method.images_per_anchor == cost_of(other)


def test_the_search_may_not_switch_on_what_cannot_share_its_batches() -> None:
    overrides = [
        "method.cs_kd={weight: 0.0}",
        "search.method.cs_kd.weight={type: float, low: 0.0, high: 1.0}",
    ]
    assert load_spec("digits-baseline", overrides=overrides).method.batch_plan == "plain"
    with pytest.raises(SpecError, match=r"search\.method\.cs_kd\.weight: the value 1\.0 is not"):
        load_spec("digits-dlb", overrides=overrides)


@given(st.integers(1, 31))
def test_companions_cost_images(num_companions: int) -> None:
    method = read_method({"bake": {"num_companions": num_companions}})
    assert method.images_per_anchor == 1 + num_companions


@given(st.integers(2, 300), st.integers(1, 31))
def test_a_batch_of_bake_is_made_of_whole_groups(batch_size: int, num_companions: int) -> None:
    changes = {"data__batch_size": batch_size, "method__bake": {"num_companions": num_companions}}
    if batch_size % (1 + num_companions) == 0:
        assert read(**changes).data.batch_size == batch_size
        return
    with pytest.raises(SpecError) as raised:
        read(**changes)
    assert str(raised.value) == (
        "test: method.bake.num_companions: one more than it must divide data.batch_size "
        f"({batch_size}), received {num_companions}"
    )


@pytest.mark.parametrize(
    "override",
    [
        "search.data.batch_size={type: choice, choices: [64, 66]}",
        "search.method.bake.num_companions={type: choice, choices: [3, 4]}",
        "data.batch_size=70",
    ],
)
def test_no_batch_that_may_be_searched_breaks_a_group(override: str) -> None:
    with pytest.raises(SpecError, match=r"one more than it must divide data\.batch_size"):
        load_spec("digits-bake", overrides=[override])


# Settings of the terms


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("label", {"name": "ps_kd", "weight": 1.1}),
        ("byot.weight", 1.0),
        ("byot.feature_weight", -1e-9),
        ("cs_kd.temperature", 0.0),
        ("dlb.weight", -0.1),
        ("tf_kd_reg.weight", 1.0),
        ("tf_kd_reg.correct_prob", 1.0),
        ("tf_kd_reg.multiplier", 0.0),
        ("bake.omega", 1.0),
        ("bake.num_companions", 0),
        ("bake.num_companions", 32),
        ("ddgsd.discrepancy", "square"),
        ("frskd.width", 5),
        ("frskd.depth", 0),
        ("zipf.power", 0.0),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_path(path: str, value: Any) -> None:
    with pytest.raises(SpecError, match=rf"^test: method\.{path}"):
        parse(TrialConfig, put(BASE, f"method.{path}", value), "test")


@pytest.mark.parametrize("checksum", [5, "", "a" * 63, "a" * 65, "A" * 64, "g" * 64, None])
def test_a_checksum_is_64_hexadecimal_digits(checksum: Any) -> None:
    settings = {"teacher": "/t", "teacher_sha256": checksum}
    with pytest.raises(SpecError, match=r"^test: method\.tf_kd_self\.teacher_sha256: received"):
        parse(TrialConfig, put(BASE, "method.tf_kd_self", settings), "test")


# Stages of BYOT


@pytest.mark.parametrize("model", ["resnet8", "resnet18", "resnet50"])
def test_byot_takes_all_stages_but_the_last_where_none_is_named(model: str) -> None:
    config = read(model__name=model, method__byot={})
    assert config.method.byot is not None
    assert config.method.byot.stages is None


@pytest.mark.parametrize("stages", [[4], [0], [], [2, 1], [1, 1], [5]])
def test_stages_that_cannot_be_taught_are_refused(stages: list[int]) -> None:
    with pytest.raises(SpecError) as raised:
        read(method__byot={"stages": stages})
    assert str(raised.value) == (
        "test: method.byot.stages: resnet18 has 4 stages and can carry auxiliary classifiers on "
        f"stages 1, 2, 3, in ascending order, received {stages}"
    )


def test_stages_are_checked_with_every_network_that_may_be_sampled() -> None:
    models = "search.model.name={type: choice, choices: [resnet18, resnet8]}"
    fixed = load_spec("cifar10-byot", overrides=[models, "method.byot.stages=[1, 2]"])
    assert fixed.search["model.name"].examples() == ("resnet18", "resnet8")
    with pytest.raises(SpecError, match=r"search\.model\.name: the value 'resnet8' is not valid"):
        load_spec("cifar10-byot", overrides=[models, "method.byot.stages=[3]"])
    searched = "search.method.byot.stages={type: stages, of: [%s]}"
    overrides = [models, "method.byot.stages=[1]"]
    load_spec("cifar10-byot", overrides=[*overrides, searched % "1, 2"])
    with pytest.raises(SpecError, match=r"byot\.stages: the value '3' is not valid: .*resnet8"):
        load_spec("cifar10-byot", overrides=[*overrides, searched % "1, 2, 3"])
    conditional = "search.method.byot.stages={type: stages, of: [1, 3], when: {model.name: %s}}"
    load_spec("cifar10-byot", overrides=[*overrides, conditional % "[resnet18]"])
    with pytest.raises(SpecError, match=r"byot\.stages: the value '3' is not valid: .*resnet8"):
        load_spec("cifar10-byot", overrides=[*overrides, conditional % "[resnet18, resnet8]"])


# Budgets


def budget(**settings: Any) -> BudgetConfig:
    return parse(BudgetConfig, settings, "test")


def test_a_budget_in_epochs_needs_no_plan() -> None:
    assert not budget(epochs=5).is_open
    assert not budget().is_open


@pytest.mark.parametrize("given_in", [{"images": 5000}, {"seconds": 2.5}])
def test_a_budget_in_images_or_seconds_is_open_until_it_is_planned(
    given_in: dict[str, Any],
) -> None:
    assert budget(**given_in).is_open
    assert not budget(**given_in, epochs=3, planned=True).is_open


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 5, "seconds": 5}, "give epochs, or images, or seconds; received two of them"),
        ({"planned": True}, "nothing is given to derive the epochs from"),
        ({"images": 0}, "images: received 0"),
        ({"images": 1.5}, "images: received 1.5"),
        ({"seconds": 0}, "seconds: received 0"),
        ({"seconds": float("inf")}, "seconds: received inf"),
    ],
)
def test_a_wrong_budget_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=r"^test: ") as raised:
        budget(**settings)
    assert message in str(raised.value)


@pytest.mark.parametrize("field", ["epochs", "images", "seconds", "planned"])
def test_a_budget_is_not_searched(field: str) -> None:
    param = "{type: int, low: 1, high: 20}"
    with pytest.raises(SpecError, match=rf"budget\.{field}: cannot be searched, because trials"):
        load_spec("digits-drg", overrides=[f"search.budget.{field}={param}"])


@pytest.mark.parametrize("given_in", ["images: 5000", "seconds: 2.5"])
def test_a_planned_budget_reads_back_as_it_was_written(given_in: str) -> None:
    overrides = [f"budget={{epochs: 7, {given_in}, planned: true}}"]
    spec = load_spec("digits-drg", overrides=overrides)
    again = spec_from_json(spec.to_json())
    assert again == spec
    assert again.digest == spec.digest
    assert not again.budget.is_open
    assert again.budget.epochs == 7
    assert spec.digest != load_spec("digits-drg", overrides=["budget.epochs=7"]).digest
    assert parse(StudySpec, spec.model_dump(mode="json"), "again") == spec
