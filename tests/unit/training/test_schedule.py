from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skdtune.describe.config import OptimizerConfig
from skdtune.training.optimizer import Schedule, build_optimizer, set_lr

STEPS = 7


def rates(schedule: Schedule, epochs: int, steps: int = STEPS) -> list[float]:
    return [schedule.lr(step) for step in range(epochs * steps)]


def test_the_published_schedule_drops_at_the_start_of_epochs_60_120_and_160() -> None:
    found = rates(Schedule(OptimizerConfig(lr=0.1), 200, STEPS), 200)
    changes = {
        step: found[step] for step in range(1, len(found)) if found[step] != found[step - 1]
    }
    assert found[0] == 0.1
    assert changes == {
        60 * STEPS: pytest.approx(0.01),
        120 * STEPS: pytest.approx(0.001),
        160 * STEPS: pytest.approx(0.0001),
    }


@pytest.mark.parametrize(
    ("epochs", "drops"), [(10, (3, 6, 8)), (100, (30, 60, 80)), (12, (3, 7, 9)), (5, (1, 3, 4))]
)
def test_the_milestones_are_scaled_to_the_planned_epochs(
    epochs: int, drops: tuple[int, ...]
) -> None:
    found = rates(Schedule(OptimizerConfig(lr=1.0, gamma=0.5), epochs, STEPS), epochs)
    expected = [0.5 ** sum(epoch >= drop for drop in drops) for epoch in range(epochs)]
    assert found[::STEPS] == expected


def test_a_milestone_is_not_lost_to_rounding() -> None:
    config = OptimizerConfig(lr=1.0, milestones=(0.29, 0.57), gamma=0.5)
    schedule = Schedule(config, 100, 1)
    assert [schedule.lr(epoch) for epoch in (28, 29, 56, 57)] == [1.0, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_first_epoch_of_a_short_training_has_the_configured_rate(epochs: int) -> None:
    assert Schedule(OptimizerConfig(lr=0.1), epochs, STEPS).lr(0) == 0.1


def test_gamma_one_never_drops() -> None:
    assert set(rates(Schedule(OptimizerConfig(lr=0.1, gamma=1.0), 10, STEPS), 10)) == {0.1}


def test_the_cosine_falls_step_by_step_from_the_peak_to_zero() -> None:
    schedule = Schedule(OptimizerConfig(lr=0.2, schedule="cosine"), 10, STEPS)
    found = rates(schedule, 10)
    assert found[0] == 0.2
    assert found[35] == pytest.approx(0.1)
    assert found[7] == pytest.approx(0.2 * 0.5 * (1 + math.cos(math.pi / 10)))
    assert all(later < earlier for earlier, later in pairwise(found))
    assert schedule.lr(10 * STEPS) == pytest.approx(0.0, abs=1e-12)


def test_the_warm_up_rises_by_equal_steps_to_the_peak() -> None:
    config = OptimizerConfig(lr=0.4, warmup_epochs=2.0, milestones=(0.5,))
    found = rates(Schedule(config, 10, STEPS), 10)
    assert found[: 2 * STEPS] == pytest.approx([0.4 * (i + 1) / 14 for i in range(14)])
    assert found[13:35] == pytest.approx([0.4] * 22)
    assert found[35] == pytest.approx(0.04)


def test_a_warm_up_may_last_a_part_of_an_epoch() -> None:
    config = OptimizerConfig(lr=0.4, warmup_epochs=0.5, schedule="cosine")
    found = rates(Schedule(config, 2, 8), 2, 8)
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found[4] == 0.4
    assert found[5] < 0.4


configs = st.builds(
    OptimizerConfig,
    lr=st.floats(1e-6, 10),
    schedule=st.sampled_from(["multistep", "cosine"]),
    milestones=st.lists(st.floats(0.01, 0.99), max_size=4).map(tuple),
    gamma=st.floats(0.01, 1),
    warmup_epochs=st.floats(0, 0.99),
)


@given(config=configs, epochs=st.integers(1, 30), steps=st.integers(1, 20))
def test_any_schedule_is_positive_at_most_the_peak_and_falls_after_the_warm_up(
    config: OptimizerConfig, epochs: int, steps: int
) -> None:
    config = config.model_copy(update={"warmup_epochs": config.warmup_epochs * epochs})
    found = rates(Schedule(config, epochs, steps), epochs, steps)
    assert all(0 < rate <= config.lr for rate in found)
    warmup = min(round(config.warmup_epochs * steps), len(found))
    assert all(a < b for a, b in pairwise(found[:warmup]))
    after = found[max(warmup - 1, 0) :]
    assert all(later <= earlier for earlier, later in pairwise(after))


def modules() -> tuple[nn.Module, nn.Module]:
    return nn.Linear(3, 4), nn.ModuleDict({"head": nn.Linear(4, 2), "none": nn.Identity()})


def test_the_optimizer_has_one_group_for_the_network_and_one_for_the_auxiliary_modules() -> None:
    network, terms = modules()
    optimizer = build_optimizer(OptimizerConfig(lr=0.3, weight_decay=0.01), network, terms)
    groups = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    assert groups == [{id(p) for p in module.parameters()} for module in (network, terms)]
    for group in optimizer.param_groups:
        assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.3, 0.01, 0.9)


def test_terms_without_parameters_make_no_group() -> None:
    network, _ = modules()
    optimizer = build_optimizer(OptimizerConfig(), network, nn.ModuleDict())
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("momentum", "nesterov", "expected"),
    [(0.9, True, True), (0.9, False, False), (0.0, True, False)],
)
def test_nesterov_needs_momentum(momentum: float, nesterov: bool, expected: bool) -> None:
    config = OptimizerConfig(momentum=momentum, nesterov=nesterov)
    (group,) = build_optimizer(config, nn.Linear(1, 1), nn.ModuleDict()).param_groups
    assert group["nesterov"] is expected
    assert group["momentum"] == momentum


def test_the_learning_rate_is_set_in_all_groups() -> None:
    network, terms = modules()
    optimizer = build_optimizer(
        OptimizerConfig(lr=0.3, momentum=0, weight_decay=0), network, terms
    )
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
    weight = next(terms.parameters())
    before = weight.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert torch.allclose(weight, before - 0.5)
