"""The presets of DRG: the ranges that follow from the published settings, and those as trial 0."""

from __future__ import annotations

import pytest
from preset_cases import BASELINE, DATASETS, load, method_of_trial_0, searched_by

from skdtune.describe.presets import load_spec

#: What is searched beside the recipe.
SEARCHED: dict[str, str] = {
    "drg.weight": "0.01 to 2, log",
    "drg.temperature": "1 to 10, log",
    "drg.stages": "any",
    "drg.aux_ce_weight": "0.1 to 2, log",
    "drg.teacher": "mean_probs | mean_logits",
}
#: What is searched only with a certain choice of something else.
CONDITIONAL = {"drg.teacher": "drg.stages"}
STAGES = {"resnet8": "1 | 2 | 1+2", "resnet18": "1 | 2 | 3 | 1+2 | 1+3 | 2+3 | 1+2+3"}
#: The published settings, in full: what is not searched counts as well.
PUBLISHED = {
    "drg": {
        "weight": 0.2,
        "temperature": 4.0,
        "stages": [2],
        "aux_ce_weight": 1.0,
        "teacher": "mean_probs",
        "align_corners": "published",
    }
}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_preset_searches_the_knobs_in_their_ranges(dataset: str) -> None:
    spec = load(f"{dataset}-drg")
    same_stages = "resnet18" if spec.model.num_stages == 4 else "resnet8"
    expected = SEARCHED | {"drg.stages": STAGES[same_stages]}
    assert searched_by(spec) == (expected, CONDITIONAL)


@pytest.mark.parametrize("dataset", DATASETS)
def test_trial_0_is_the_published_setting(dataset: str) -> None:
    assert method_of_trial_0(load(f"{dataset}-drg")) == BASELINE | PUBLISHED


@pytest.mark.parametrize(
    ("model", "stages"), [("resnet50", STAGES["resnet18"]), ("resnet20", STAGES["resnet8"])]
)
def test_another_backbone_brings_its_own_stages(model: str, stages: str) -> None:
    spec = load_spec("cifar100-drg", overrides=[f"model.name={model}"])
    assert spec.search["method.drg.stages"].describe() == stages
