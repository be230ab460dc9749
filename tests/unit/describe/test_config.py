"""The configuration of one trial: strict, frozen, and with the published values as defaults."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from skdtune.catalogues.models import Network, networks
from skdtune.describe.config import DataConfig, ModelConfig, OptimizerConfig, TrialConfig
from skdtune.describe.dotted import models_of, put
from skdtune.describe.model_config import check_stages
from skdtune.describe.settings import encode_stages
from skdtune.describe.spec import StudySpec, parse
from skdtune.describe.term_config import TermConfig
from skdtune.errors import SpecError
from skdtune.methods.byot.settings import ByotConfig
from skdtune.methods.cross_entropy.settings import CrossEntropyConfig
from skdtune.methods.drg.settings import DrgConfig
from skdtune.methods.dsr.settings import DsrConfig
from skdtune.methods.label_smoothing.settings import LabelSmoothingConfig

BASE: dict[str, Any] = {"data": {"name": "digits"}, "model": {"name": "resnet18"}}


def read(path: str, value: Any) -> TrialConfig:
    return parse(TrialConfig, put(BASE, path, value), "test")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optimizer.lr", "0.1"),
        ("optimizer.lr", True),
        ("optimizer.lr", None),
        ("optimizer.lr", [0.1]),
        ("optimizer.lr", float("nan")),
        ("optimizer.lr", float("inf")),
        ("optimizer.nesterov", 1),
        ("optimizer.nesterov", "yes"),
        ("data.batch_size", 64.0),
        ("data.batch_size", "64"),
        ("data.batch_size", True),
        ("data.root", 5),
        ("method.drg", 1),
        ("method.drg.stages", 2),
        ("method.drg.stages", "2,3"),
        ("method.drg.stages", ["2"]),
        ("method.drg.align_corners", "sometimes"),
        ("method.label", {"name": "hinge"}),
        ("seed", -1),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_and_not_converted(path: str, value: Any) -> None:
    with pytest.raises(SpecError, match=rf"^test: {path.split('.')[0]}"):
        read(path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optimizer.lr", 0),
        ("optimizer.lr", -0.1),
        ("optimizer.momentum", 1),
        ("optimizer.weight_decay", -1e-9),
        ("optimizer.milestones", [0.5, 1.0]),
        ("optimizer.gamma", 0),
        ("optimizer.gamma", 1.1),
        ("optimizer.warmup_epochs", -1),
        ("data.val_fraction", 0),
        ("data.val_fraction", 1),
        ("data.batch_size", 1),
        ("data.image_size", 3),
        ("data.max_per_class", 1),
        ("model.width", 3),
        ("budget.epochs", 0),
        ("budget.epochs", 10**12),
        ("method.drg.weight", -1),
        ("method.drg.temperature", 0),
        ("method.dsr.temperature", 0),
        ("method.dsr.weight", -1),
        ("method.label", {"name": "label_smoothing", "smoothing": 1}),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_path(path: str, value: Any) -> None:
    with pytest.raises(SpecError, match=rf"^test: {path}"):
        read(path, value)


def test_a_whole_number_may_stand_for_a_real_one() -> None:
    assert read("optimizer.lr", 1).optimizer.lr == 1.0


def test_a_configuration_cannot_be_changed() -> None:
    config = read("seed", 1)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 2  # type: ignore[misc]


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SpecError, match=r"optimizer\.momemtum: .* did you mean 'momentum'\?"):
        read("optimizer.momemtum", 0.9)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5, unique=True).map(sorted))
def test_stages_read_as_they_were_written(stages: list[int]) -> None:
    drg = DrgConfig.model_validate({"stages": encode_stages(tuple(stages))})
    assert drg.stages == tuple(stages)


@pytest.mark.parametrize("name", sorted(networks()))
def test_every_subset_below_the_last_stage_can_teach(name: str) -> None:
    model = ModelConfig.model_validate({"name": name})
    usable = range(1, networks()[name].num_stages)
    for size in range(1, len(usable) + 1):
        for stages in combinations(usable, size):
            check_stages("drg", stages, model)


@given(
    st.sampled_from(["drg", "byot"]),
    st.sampled_from(sorted(networks())),
    st.lists(st.integers(-1, 6), max_size=4).map(tuple),
)
def test_no_other_stages_can_teach(method: str, name: str, stages: tuple[int, ...]) -> None:
    model = ModelConfig.model_validate({"name": name})
    usable = set(range(1, networks()[name].num_stages))
    if stages and set(stages) <= usable and list(stages) == sorted(set(stages)):
        check_stages(method, stages, model)
        return
    with pytest.raises(ValueError, match=rf"^method\.{method}\.stages: {name} has") as raised:
        check_stages(method, stages, model)
    assert f"stages {', '.join(map(str, sorted(usable)))}" in str(raised.value)
    assert f"received {list(stages)}" in str(raised.value)


def test_a_stage_without_its_brackets_is_told_to_take_some() -> None:
    with pytest.raises(SpecError, match=r"stages: .*must be a list of stages: \[2\]$"):
        read("method.drg.stages", 2)


@pytest.mark.parametrize("settings", [DrgConfig(), ByotConfig()])
def test_a_network_of_one_stage_can_carry_no_auxiliary_classifier(
    settings: TermConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"resnet8": Network(stages=("all",))}
    model = ModelConfig(name="resnet8")
    monkeypatch.setattr("skdtune.describe.model_config.networks", lambda: one)
    with pytest.raises(ValueError, match=r"^method\.x: resnet8 has one stage only"):
        settings.require_fit("x", DataConfig(name="digits"), model)


def test_a_stage_that_the_backbone_lacks_is_refused_with_the_whole_configuration() -> None:
    with pytest.raises(SpecError, match="resnet18 has 4 stages"):
        read("method.drg.stages", [4])


def test_a_folder_of_images_needs_its_root() -> None:
    with pytest.raises(SpecError, match=r"data\.root: .*--set data\.root=DIR"):
        read("data", {"name": "imagefolder"})
    assert read("data", {"name": "imagefolder", "root": "/x"}).data.root == "/x"


def test_a_warm_up_must_end_before_the_training_does() -> None:
    raw = put(BASE, "budget.epochs", 5)
    assert parse(TrialConfig, put(raw, "optimizer.warmup_epochs", 4.5), "test")
    with pytest.raises(SpecError, match=r"warmup_epochs must be below budget\.epochs \(5\)"):
        parse(TrialConfig, put(raw, "optimizer.warmup_epochs", 5), "test")


def test_the_defaults_are_the_published_values() -> None:
    assert DrgConfig().model_dump() == {
        "weight": 0.2,
        "temperature": 4.0,
        "stages": (2,),
        "aux_ce_weight": 1.0,
        "teacher": "mean_probs",
        "align_corners": False,
    }
    assert DsrConfig().model_dump() == {"weight": 1.0, "temperature": 4.0, "pairing": "row"}
    optimizer = OptimizerConfig()
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.1, 0.9, 5e-4)
    assert (optimizer.schedule, optimizer.gamma) == ("multistep", 0.1)
    assert [200 * milestone for milestone in optimizer.milestones] == [60, 120, 160]
    assert LabelSmoothingConfig().smoothing == 0.1
    assert CrossEntropyConfig().name == "cross_entropy"
    assert DataConfig(name="cifar10").batch_size == 128


def test_every_setting_says_what_it_is() -> None:
    silent = [
        f"{model.__name__}.{name}"
        for model in _models_below(StudySpec)
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert silent == []


def _models_below(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        for below in models_of(field.annotation):
            found |= _models_below(below)
    return found
