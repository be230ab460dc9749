"""A budget in images or seconds becomes whole epochs before a study is created."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from skdtune.data.store import DataStore
from skdtune.describe import budget_planning
from skdtune.describe.budget_planning import plan_budget, planned_before
from skdtune.describe.presets import load_family, load_spec
from skdtune.describe.spec import StudySpec, spec_from_json
from skdtune.errors import InputError, SpecError
from skdtune.home import Home
from skdtune.worker.probes.epoch_cost import epoch_cost

#: The digits that are left to train on are 1010; a step has 64 images, a smaller one is dropped.
PLAIN = 15 * 64
IMAGES_PER_EPOCH = {
    "baseline": PLAIN,
    "drg-dsr": PLAIN,
    "ps-kd": PLAIN,
    "dlb": 2 * PLAIN,
    "cs-kd": 2 * PLAIN,
    "ddgsd": 2 * PLAIN,
    # 16 anchors a step, with three companions each.
    "bake": 63 * 64,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DataStore:
    folder = tmp_path_factory.mktemp("data")
    return DataStore(folder, folder, torch.device("cpu"))


@pytest.mark.parametrize("method", IMAGES_PER_EPOCH)
def test_an_epoch_costs_all_images_that_it_classifies(store: DataStore, method: str) -> None:
    config = load_spec(f"digits-{method}").trial_config({}, 0)
    assert len(store.get(config.data).train) == 1010
    expected = {"images": float(IMAGES_PER_EPOCH[method])}
    assert epoch_cost(config, store, is_timed=False) == expected


@pytest.fixture
def here(store: DataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look in this process, which saves the start of another one."""

    def look(spec: StudySpec, at: Home, *, is_timed: bool) -> dict[str, float]:
        return epoch_cost(spec.trial_config({}, 0), store, is_timed=is_timed)

    monkeypatch.setattr(budget_planning, "_look", look)


def planned(method: str, tmp_path: Path, *overrides: str) -> Any:
    spec = load_spec(f"digits-{method}", overrides=overrides)
    return plan_budget(spec, at=Home(tmp_path))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("method", "images", "epochs"),
    [
        ("baseline", 10 * PLAIN, 10),
        ("baseline", 10 * PLAIN - 1, 9),
        ("dlb", 10 * PLAIN, 5),
        ("bake", 3 * 63 * 64, 3),
    ],
)
def test_images_pay_for_whole_epochs(
    tmp_path: Path, method: str, images: int, epochs: int
) -> None:
    overrides = ["pruner.name=none", f"budget.images={images}"]
    spec = planned(method, tmp_path, *overrides)
    assert spec.budget.model_dump() == {
        "epochs": epochs,
        "images": images,
        "seconds": None,
        "planned": True,
    }
    # Nothing else changes, and there is nothing left to plan.
    before = load_spec(f"digits-{method}", overrides=overrides)
    assert spec.model_dump(exclude={"budget"}) == before.model_dump(exclude={"budget"})
    assert plan_budget(spec, at=Home(tmp_path / "not there")) is spec
    assert spec_from_json(spec.to_json()) == spec


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("method", "images"), [("baseline", PLAIN), ("dlb", 2 * PLAIN)])
def test_less_than_an_epoch_is_refused_with_what_one_takes(
    tmp_path: Path, method: str, images: int
) -> None:
    with pytest.raises(SpecError) as raised:
        planned(method, tmp_path, f"budget.images={images - 1}")
    assert str(raised.value) == (
        f"budget.images: {images - 1} do not pay for one epoch of digits-{method}, which takes "
        f"{images}"
    )


@pytest.mark.usefixtures("here")
def test_a_study_that_is_wrong_with_the_epochs_it_gets_is_refused(tmp_path: Path) -> None:
    overrides = [f"budget.images={3 * PLAIN}", "optimizer.warmup_epochs=4"]
    with pytest.raises(SpecError, match=r"warmup_epochs must be below budget\.epochs \(3\)"):
        planned("baseline", tmp_path, *overrides)


def test_a_budget_in_epochs_takes_no_look_at_the_data(tmp_path: Path) -> None:
    spec = load_spec("imagefolder-drg", overrides=[f"data.root={tmp_path / 'missing'}"])
    assert plan_budget(spec, at=Home(tmp_path)) is spec


def test_another_process_looks_at_the_data(tmp_path: Path) -> None:
    spec = planned("bake", tmp_path, f"budget.images={4 * IMAGES_PER_EPOCH['bake']}")
    assert (spec.budget.epochs, spec.budget.planned) == (4, True)


def test_seconds_pay_for_whole_epochs_as_long_as_they_take_here(tmp_path: Path) -> None:
    spec = planned("baseline", tmp_path, "budget.seconds=300", "model.width=4")
    assert spec.budget.seconds == 300
    assert spec.budget.planned
    assert spec.budget.epochs >= 1
    assert spec_from_json(spec.to_json()) == spec


def test_an_epoch_is_timed_with_its_validation(store: DataStore) -> None:
    config = load_spec("digits-baseline", overrides=["model.width=4"]).trial_config({}, 0)
    cost = epoch_cost(config, store, is_timed=True)
    assert cost.keys() == {"images", "seconds"}
    assert cost["images"] == PLAIN
    assert cost["seconds"] > 0


def test_seconds_that_pay_for_no_epoch_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_planning, "_look", lambda *_, **__: {"images": 1, "seconds": 2.5})
    assert planned("baseline", tmp_path, "budget.seconds=10").budget.epochs == 4
    with pytest.raises(SpecError) as raised:
        planned("baseline", tmp_path, "budget.seconds=2.4")
    assert str(raised.value) == (
        "budget.seconds: 2.4 do not pay for one epoch of digits-baseline, which takes 2.5"
    )


def test_data_that_are_not_there_are_named_in_one_line(tmp_path: Path) -> None:
    root = tmp_path / "missing"
    spec = load_spec("imagefolder-drg", overrides=[f"data.root={root}", "budget.images=1000000"])
    with pytest.raises(InputError) as raised:
        plan_budget(spec, at=Home(tmp_path))
    message = str(raised.value)
    assert message.startswith("the budget of imagefolder-drg cannot be planned here: ")
    assert str(root) in message
    assert "\n" not in message
    assert raised.value.exit_code == 2


@pytest.mark.usefixtures("here")
def test_the_studies_of_a_family_get_what_the_same_images_pay_for(tmp_path: Path) -> None:
    family = load_family("digits-compare", overrides=[f"budget.images={12 * PLAIN}"])
    planned_epochs = {
        spec.name.removeprefix("digits-compare-"): plan_budget(spec, at=Home(tmp_path)).budget
        for spec in family
    }
    assert {budget.images for budget in planned_epochs.values()} == {12 * PLAIN}
    found = {method: budget.epochs for method, budget in planned_epochs.items()}
    twice = dict.fromkeys(("dlb", "cs-kd", "ddgsd"), 6)
    assert found == dict.fromkeys(found, 12) | twice | {"bake": 2}


# What was planned before


def test_a_study_that_is_there_keeps_its_plan() -> None:
    overrides = ["budget.seconds=10"]
    spec = load_spec("digits-drg", overrides=overrides)
    stored = load_spec(
        "digits-drg", overrides=["budget={epochs: 7, seconds: 10.0, planned: true}"]
    )
    assert planned_before(spec, stored) == stored
    assert planned_before(spec, None) is None


@pytest.mark.parametrize(
    "there",
    [
        ["budget.epochs=7"],
        ["budget={epochs: 7, seconds: 11.0, planned: true}"],
        ["budget={epochs: 7, images: 10, planned: true}"],
        ["budget={epochs: 7, seconds: 10.0, planned: true}", "seed=1"],
    ],
)
def test_a_study_that_differs_in_more_is_planned_anew(there: list[str]) -> None:
    spec = load_spec("digits-drg", overrides=["budget.seconds=10"])
    assert planned_before(spec, load_spec("digits-drg", overrides=there)) is None
