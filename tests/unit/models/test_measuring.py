from __future__ import annotations

import pytest
import torch
from network_cases import SMALLEST
from torch import Tensor, nn

from skdtune.catalogues.models import networks
from skdtune.models.backbone import StagedBackbone
from skdtune.models.description import FeatureShape, StageShape
from skdtune.models.measuring import (
    cost_of_auxiliary_classifiers,
    cost_of_network,
    count_multiply_adds,
    count_training_bytes,
    outline,
)


@pytest.mark.parametrize("name", SMALLEST)
def test_the_stages_and_the_classifier_add_up(name: str) -> None:
    network = outline(name, (3, 32, 32), 10)
    cost = cost_of_network(network, (3, 32, 32), has_maps=networks()[name].has_maps)
    parts = [*cost.stage_parameters, cost.last_parameters]
    assert sum(parts) == sum(parameter.numel() for parameter in network.parameters())
    assert all(part > 0 for part in parts)
    assert len(cost.stage_shapes) == networks()[name].num_stages
    assert cost.last_parameters >= network.classifier.weight.numel()


def test_a_stage_has_what_its_module_has_and_the_first_one_the_stem() -> None:
    network = outline("resnet20", (3, 32, 32), 100)
    assert isinstance(network, StagedBackbone)
    cost = cost_of_network(network, (3, 32, 32), has_maps=True)
    expected = [sum(p.numel() for p in stage.parameters()) for stage in network.stages]
    expected[0] += sum(p.numel() for p in network.stem.parameters())
    assert list(cost.stage_parameters) == expected
    assert cost.last_parameters == 64 * 100 + 100


def test_published_costs() -> None:
    resnet18 = cost_of_network(outline("resnet18", (3, 32, 32), 100), (3, 32, 32), has_maps=True)
    assert resnet18.whole.num_parameters == 11_220_132
    assert resnet18.whole.multiply_adds == 555_468_800
    # 0.041 G in table 6 of many papers, for 10 classes.
    resnet20 = outline("resnet20", (3, 32, 32), 10)
    assert round(count_multiply_adds(resnet20, (3, 32, 32)) / 1e6, 1) == 40.8


class Attention(nn.Module):
    """One head of attention over tokens of 8 channels, written with functions alone."""

    def forward(self, tokens_BTC: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(tokens_BTC, tokens_BTC, tokens_BTC)


def test_attention_counts() -> None:
    tokens = 6
    assert count_multiply_adds(Attention(), (1, tokens, 8)) == 2 * tokens * tokens * 8


def test_what_is_kept_for_the_backward_counts_once() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 30), nn.ReLU())
    # The input, and the output of each ReLU, which the next layer needs as well.
    assert count_training_bytes(module, (10,)) == 4 * (10 + 20 + 30)


def test_the_memory_is_that_of_one_image_whatever_is_kept_for_all() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU())
    assert count_training_bytes(module, (1000,)) == 4 * 2000


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_auxiliary_classifiers_of_maps_and_tokens(width: float) -> None:
    maps = tuple(StageShape(64 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4))
    heads = cost_of_auxiliary_classifiers(maps, 100, width)
    assert list(heads) == [1, 2, 3]
    if width == 1.0:
        assert [cost.num_parameters for cost in heads.values()] == [329_828, 342_116, 391_268]
    tokens = (FeatureShape((16, 32)), FeatureShape((16, 32)))
    (head,) = cost_of_auxiliary_classifiers(tokens, 10, width).values()
    hidden = 32 * 32 if width == 1.0 else 2 * 32 * 16
    assert head.num_parameters == hidden + 32 + 32 * 10 + 10
    assert head.multiply_adds == hidden + 32 * 10


def test_nothing_is_drawn() -> None:
    before = torch.get_rng_state()
    cost_of_network(outline("resnet8", (1, 8, 8), 10), (1, 8, 8), has_maps=True)
    assert torch.equal(torch.get_rng_state(), before)
