"""What is too short for a method: counted as the batch plans count, and refused with numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from skdtune.data.plans import build_plan
from skdtune.describe.config import MethodConfig
from skdtune.describe.presets import load_spec
from skdtune.describe.spec import StudySpec, parse
from skdtune.describe.training_length import (
    TrainingLength,
    most_training_images,
    require_long_enough,
)
from skdtune.errors import SpecError


def study(method: str, *overrides: str) -> StudySpec:
    return load_spec(f"digits-{method}", overrides=overrides)


@pytest.mark.parametrize("method", ["baseline", "dlb", "bake", "ddgsd", "cs-kd", "ps-kd"])
@pytest.mark.parametrize(("num_images", "batch_size"), [(90, 32), (33, 32), (31, 32), (3, 32)])
def test_steps_are_those_of_the_batch_plan(method: str, num_images: int, batch_size: int) -> None:
    config: MethodConfig = study(method).method
    plan = build_plan(config, torch.arange(num_images) % 3, batch_size)
    length = TrainingLength(
        epochs=1, num_images=num_images, batch_size=batch_size, companions=config.companions
    )
    assert length.steps == plan.num_steps


TOO_FEW = (
    "255 training images make no second batch of 128: take a data.batch_size of at most 127, more "
    "images or another method"
)
BATCHES = ("data.batch_size=128",)


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        (
            "dsr",
            BATCHES,
            "method.dsr: compares each batch of an epoch with the one before it, and",
        ),
        ("drg-dsr", BATCHES, "method.dsr: compares each batch of an epoch with the one before"),
        # The largest batch that may be sampled counts, and the largest weight.
        ("dsr", ("search.data.batch_size={type: choice, choices: [32, 64, 128]}",), TOO_FEW),
        (
            "dsr",
            (
                *BATCHES,
                "method.dsr.weight=0",
                "search.method.dsr.weight={type: float, low: 0, high: 1, log: false}",
            ),
            TOO_FEW,
        ),
        (
            "dlb",
            (*BATCHES, "budget.epochs=1"),
            "method.dlb: learns from the batch before, there is",
        ),
    ],
)
def test_too_few_images_are_refused(method: str, overrides: tuple[str, ...], message: str) -> None:
    spec = study(method, *overrides)
    require_long_enough(spec, 256)
    with pytest.raises(SpecError) as caught:
        require_long_enough(spec, 255)
    assert str(caught.value).startswith(f"digits-{method}: method.")
    assert message in str(caught.value)
    assert str(caught.value).endswith(TOO_FEW)


def test_one_epoch_of_a_method_that_remembers_epochs_is_refused() -> None:
    one = ("budget.epochs=1", "pruner.name=none", "optimizer.warmup_epochs=0")
    with pytest.raises(
        SpecError, match=r"^digits-ps-kd: method\.label: ps_kd learns from the pred"
    ):
        require_long_enough(study("ps-kd", *one), 1000)
    require_long_enough(
        study("ps-kd", *one, "method.label.weight=0", "search.method.label.weight=null"), 1000
    )
    require_long_enough(study("ps-kd"), 1000)


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("dsr", ("method.dsr.weight=0", "search.method.dsr.weight=null")),
        # Across epochs there is a batch before.
        ("dlb", ()),
        ("cs-kd", ()),
        ("bake", ()),
        ("baseline", ()),
    ],
)
def test_what_does_not_look_back_may_be_short(method: str, overrides: tuple[str, ...]) -> None:
    require_long_enough(study(method, *BATCHES, *overrides), 12)


def test_a_candidate_of_an_evaluation_counts_with_its_own_batch() -> None:
    raw: dict[str, Any] = study("dsr").model_dump(mode="json")
    raw |= {"search": {}, "pruner": {"name": "none"}, "num_trials": 2}
    raw["evaluation"] = {
        "source": "digits-dsr",
        "lineage": "0" * 16,
        "digest": "0" * 16,
        "trials": [3, 4],
        "params": [{}, {"data.batch_size": 512}],
    }
    spec = parse(StudySpec, raw, "test")
    require_long_enough(spec, 1024)
    with pytest.raises(SpecError, match=r"make no second batch of 512: take"):
        require_long_enough(spec, 1023)


@pytest.mark.parametrize(
    ("overrides", "most"),
    [
        ((), 1347 - 331),
        (("data.max_per_class=10",), 80),
        (("data.max_per_class=10", "data.val_fraction=0.01"), 90),
        (("data.name=imagefolder", "data.root=/nowhere"), None),
    ],
)
def test_what_is_known_without_the_data_is_no_less_than_there_is(
    overrides: tuple[str, ...], most: int | None
) -> None:
    assert most_training_images(study("dsr", *overrides)) == most
