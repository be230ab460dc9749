"""When a pruner judges: ascending epochs before the last one, a factor eta apart."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdtune.describe.pruner_settings import PrunerSettings
from skdtune.search.pruners.asha import AshaConfig
from skdtune.search.pruners.hyperband import HyperbandConfig
from skdtune.search.pruners.median import MedianConfig
from skdtune.search.pruners.none import NoPruner

optional_epochs = st.none() | st.integers(1, 400)
halving = st.builds(
    AshaConfig,
    name=st.just("asha"),
    min_epochs=optional_epochs,
    reduction_factor=st.integers(2, 9),
) | st.builds(
    HyperbandConfig,
    name=st.just("hyperband"),
    min_epochs=optional_epochs,
    reduction_factor=st.integers(2, 9),
)
median = st.builds(
    MedianConfig,
    name=st.just("median"),
    warmup_epochs=optional_epochs,
    interval_epochs=st.integers(1, 20),
)
pruners = st.one_of(st.just(NoPruner(name="none")), median, halving)
budgets = st.integers(1, 300)


@given(pruners, budgets)
def test_rungs_ascend_and_lie_before_the_last_epoch(pruner: PrunerSettings, epochs: int) -> None:
    for rungs in pruner.brackets(epochs):
        assert list(rungs) == sorted(set(rungs))
        assert all(1 <= rung < epochs for rung in rungs)


@given(halving, budgets)
def test_successive_halving_waits_a_factor_eta_between_rungs(
    pruner: AshaConfig | HyperbandConfig, epochs: int
) -> None:
    for rungs in pruner.brackets(epochs):
        for rung, following in pairwise(rungs):
            assert following == rung * pruner.reduction_factor
        # The table stops only where the budget does.
        assert not rungs or rungs[-1] * pruner.reduction_factor >= epochs


@given(halving, budgets)
def test_the_first_rung_is_the_least_number_of_epochs(
    pruner: AshaConfig | HyperbandConfig, epochs: int
) -> None:
    first = pruner.first_rung(epochs)
    if pruner.min_epochs is not None:
        assert first == pruner.min_epochs
    else:
        square = pruner.reduction_factor**2
        assert (first - 1) * square < epochs <= first * square
    if first < epochs:
        assert pruner.brackets(epochs)[0][0] == first


@given(halving.filter(lambda pruner: pruner.name == "hyperband"), budgets)
def test_each_bracket_of_hyperband_starts_where_the_one_before_had_its_second_rung(
    pruner: HyperbandConfig, epochs: int
) -> None:
    brackets = pruner.brackets(epochs)
    for bracket, following in pairwise(brackets):
        assert following == bracket[1:]


@given(median, budgets)
def test_the_median_judges_at_equal_distances(pruner: MedianConfig, epochs: int) -> None:
    (rungs,) = pruner.brackets(epochs)
    distances = {later - rung for rung, later in pairwise(rungs)}
    assert distances <= {pruner.interval_epochs}


@given(pruners, budgets)
def test_the_judged_epochs_are_those_of_all_brackets(pruner: PrunerSettings, epochs: int) -> None:
    for rungs in pruner.brackets(epochs):
        assert pruner.judged_epochs(epochs) >= set(rungs)
    assert len(pruner.judged_epochs(epochs)) <= sum(map(len, pruner.brackets(epochs)))


def test_nobody_is_judged_without_a_pruner() -> None:
    assert NoPruner(name="none").judged_epochs(200) == frozenset()


@pytest.mark.parametrize(
    ("pruner", "epochs", "brackets"),
    [
        (AshaConfig(name="asha"), 200, ((23, 69),)),
        (AshaConfig(name="asha"), 9, ((1, 3),)),
        (AshaConfig(name="asha", min_epochs=5, reduction_factor=4), 200, ((5, 20, 80),)),
        (HyperbandConfig(name="hyperband"), 9, ((1, 3), (3,), ())),
        (MedianConfig(), 12, (tuple(range(6, 12)),)),
        (MedianConfig(warmup_epochs=2, interval_epochs=4), 12, ((2, 6, 10),)),
        (NoPruner(name="none"), 12, ((),)),
    ],
)
def test_the_rung_table_of_known_budgets(
    pruner: PrunerSettings, epochs: int, brackets: tuple[tuple[int, ...], ...]
) -> None:
    assert pruner.brackets(epochs) == brackets


def test_an_absurd_factor_still_gives_a_table() -> None:
    pruner = AshaConfig(name="asha", reduction_factor=10**400)
    assert pruner.brackets(200) == ((1,),)
