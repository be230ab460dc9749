from __future__ import annotations

import binascii
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdtune.describe.pruner_settings import PrunerSettings
from skdtune.search.pruners.asha import AshaConfig
from skdtune.search.pruners.finished_epochs import in_finished_epochs
from skdtune.search.pruners.hyperband import HyperbandConfig
from skdtune.search.pruners.median import MedianConfig
from skdtune.search.pruners.none import NoPruner


class Curves:
    """A real study in memory, fed epoch by epoch; the pruner is asked after every epoch."""

    def __init__(self, config: PrunerSettings, epochs: int, name: str = "curves") -> None:
        self.study = optuna.create_study(
            study_name=name, direction="maximize", pruner=config.build(epochs)
        )
        self.epochs = epochs

    def start(self) -> optuna.Trial:
        return self.study.ask()

    def is_pruned(self, trial: optuna.Trial, finished: int, value: float) -> bool:
        """Report the epoch that makes so many finished ones, then ask."""
        storage = self.study._storage
        storage.set_trial_intermediate_value(trial._trial_id, finished - 1, value)
        return self.study.pruner.prune(self.study, storage.get_trial(trial._trial_id))

    def complete(self, values: list[float]) -> None:
        trial = self.start()
        for epoch, value in enumerate(values):
            self.study._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
        self.study.tell(trial, values[-1])


@dataclass
class Halving:
    """Successive halving as its authors wrote it: on arrival, keep the best 1/eta of a rung."""

    rungs: tuple[int, ...]
    eta: int
    seen: dict[int, list[float]] = field(default_factory=dict)

    def is_pruned(self, finished: int, value: float) -> bool:
        if finished not in self.rungs:
            return False
        values = self.seen.setdefault(finished, [])
        values.append(value)
        # While fewer than eta have arrived there is no best 1/eta: only the best goes on.
        kept = max(1, len(values) // self.eta)
        return value < sorted(values, reverse=True)[kept - 1]


def arrivals(curves: list[list[float]], order: list[int]) -> Iterator[tuple[int, int, float]]:
    """Interleave curves as parallel workers would: (trial, finished epochs, value)."""
    done = [0] * len(curves)
    for pick in [*order, *(i for i in range(len(curves)) for _ in curves[i])]:
        index = pick % len(curves)
        if done[index] < len(curves[index]):
            done[index] += 1
            yield index, done[index], curves[index][done[index] - 1]


@st.composite
def searches(draw: st.DrawFn) -> tuple[int, int, int, list[list[float]], list[int]]:
    epochs = draw(st.integers(2, 12))
    eta = draw(st.integers(2, 4))
    first = draw(st.integers(1, epochs - 1))
    curve = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=epochs, max_size=epochs)
    curves = draw(st.lists(curve, min_size=1, max_size=8))
    order = draw(st.lists(st.integers(0, 7), max_size=60))
    return epochs, eta, first, curves, order


@given(search=searches())
@settings(max_examples=40, deadline=None)
def test_asha_prunes_exactly_as_successive_halving_at_the_rungs_does(
    search: tuple[int, int, int, list[list[float]], list[int]],
) -> None:
    epochs, eta, first, curves, order = search
    config = AshaConfig(name="asha", min_epochs=first, reduction_factor=eta)
    found = Curves(config, epochs)
    (rungs,) = config.brackets(epochs)
    expected = Halving(rungs, eta)
    trials = [found.start() for _ in curves]
    ended: set[int] = set()
    for index, finished, value in arrivals(curves, order):
        # At the last epoch there is nothing left to save; a worker does not ask there.
        if index in ended or finished == epochs:
            continue
        pruned = found.is_pruned(trials[index], finished, value)
        assert pruned == expected.is_pruned(finished, value), (index, finished)
        if pruned:
            ended.add(index)


@given(search=searches())
@settings(max_examples=40, deadline=None)
def test_hyperband_prunes_exactly_as_successive_halving_in_each_bracket_does(
    search: tuple[int, int, int, list[list[float]], list[int]],
) -> None:
    epochs, eta, first, curves, order = search
    config = HyperbandConfig(name="hyperband", min_epochs=first, reduction_factor=eta)
    found = Curves(config, epochs)
    brackets = [Halving(rungs, eta) for rungs in config.brackets(epochs)]
    trials = [found.start() for _ in curves]
    ended: set[int] = set()
    for index, finished, value in arrivals(curves, order):
        if index in ended or finished == epochs:
            continue
        bracket = brackets[bracket_of("curves", trials[index].number, len(brackets), eta)]
        pruned = found.is_pruned(trials[index], finished, value)
        assert pruned == bracket.is_pruned(finished, value), (index, finished)
        if pruned:
            ended.add(index)


def bracket_of(study: str, number: int, num_brackets: int, eta: int) -> int:
    """Deal a trial to a bracket as Optuna documents it: by a hash, shares as in the paper."""
    shares = [math.ceil(num_brackets * eta**s / (s + 1)) for s in reversed(range(num_brackets))]
    place = binascii.crc32(f"{study}_{number}".encode()) % sum(shares)
    for bracket, share in enumerate(shares):
        place -= share
        if place < 0:
            return bracket
    raise AssertionError(place)


@pytest.mark.parametrize(
    ("epochs", "eta", "first", "number"),
    [
        (243, 3, 1, 6),
        (243, 3, None, 3),
        (125, 5, 1, 4),
        (200, 3, 5, 4),
        (8, 2, 1, 4),
        (2, 3, 1, 1),
    ],
)
def test_hyperband_has_the_exact_number_of_brackets(
    epochs: int, eta: int, first: int | None, number: int
) -> None:
    config = HyperbandConfig(name="hyperband", min_epochs=first, reduction_factor=eta)
    curves = Curves(config, epochs)
    curves.is_pruned(curves.start(), 1, 0.5)
    assert len(config.brackets(epochs)) == number
    assert len(curves.study.pruner._pruners) == number  # type: ignore[attr-defined]


@pytest.mark.parametrize("epochs", [2, 7, 12, 200])
def test_the_median_is_first_asked_after_half_of_the_epochs(epochs: int) -> None:
    config = MedianConfig(num_startup_trials=3)
    curves = Curves(config, epochs)
    for _ in range(3):
        curves.complete([0.9] * epochs)
    bad = curves.start()
    judged = [n for n in range(1, epochs + 1) if curves.is_pruned(bad, n, 0.1)]
    assert judged[0] == max(1, epochs // 2)
    assert tuple(judged[:-1]) == config.brackets(epochs)[0]


def test_the_median_is_asked_at_its_interval() -> None:
    config = MedianConfig(num_startup_trials=1, warmup_epochs=3, interval_epochs=4)
    curves = Curves(config, 20)
    curves.complete([0.9] * 20)
    bad = curves.start()
    judged = [n for n in range(1, 20) if curves.is_pruned(bad, n, 0.1)]
    assert judged == [3, 7, 11, 15, 19]
    assert config.brackets(20) == (tuple(judged),)


def test_the_median_prunes_nothing_before_enough_trials_are_complete() -> None:
    curves = Curves(MedianConfig(num_startup_trials=3), 4)
    for number in range(3):
        bad = curves.start()
        assert not any(curves.is_pruned(bad, n, 0.0) for n in range(1, 4)), number
        curves.complete([0.9] * 4)
    assert curves.is_pruned(curves.start(), 2, 0.0)


def test_a_trial_at_the_median_goes_on() -> None:
    curves = Curves(MedianConfig(num_startup_trials=1), 4)
    for value in (0.2, 0.5, 0.8):
        curves.complete([value] * 4)
    assert not curves.is_pruned(curves.start(), 2, 0.5)
    assert curves.is_pruned(curves.start(), 2, 0.49)


def test_without_a_pruner_every_trial_goes_on() -> None:
    curves = Curves(NoPruner(name="none"), 4)
    for _ in range(8):
        curves.complete([0.9] * 4)
    bad = curves.start()
    assert not any(curves.is_pruned(bad, n, 0.0) for n in range(1, 5))


# Going back to a checkpoint


@st.composite
def halvings(draw: st.DrawFn) -> tuple[PrunerSettings, int, int]:
    epochs = draw(st.integers(2, 30))
    settings = {
        "name": draw(st.sampled_from(["asha", "hyperband"])),
        "min_epochs": draw(st.none() | st.integers(1, epochs - 1)),
        "reduction_factor": draw(st.integers(2, 4)),
    }
    kind = AshaConfig if settings["name"] == "asha" else HyperbandConfig
    return kind.model_validate(settings), epochs, draw(st.integers(1, epochs - 1))


@given(search=halvings(), num_trials=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_marks_beyond_a_checkpoint_are_those_that_were_made_after_it(
    search: tuple[PrunerSettings, int, int], num_trials: int
) -> None:
    config, epochs, reached = search
    curves = Curves(config, epochs)
    judged = config.judged_epochs(epochs)
    for number in range(num_trials):
        trial = curves.start()
        # The marks after each number of epochs, beginning with none.
        marks: list[set[str]] = [set()]
        for finished in range(1, reached + 1):
            curves.study._storage.set_trial_intermediate_value(
                trial._trial_id, finished - 1, number + 1.0
            )
            frozen = curves.study._storage.get_trial(trial._trial_id)
            if finished in judged:
                assert not curves.study.pruner.prune(curves.study, frozen)
                frozen = curves.study._storage.get_trial(trial._trial_id)
            marks.append({key for key in frozen.system_attrs if key.startswith("completed_rung")})
        for finished in range(reached + 1):
            beyond = config.rung_marks_beyond(curves.study, frozen, epochs, finished)
            assert set(beyond) == marks[reached] - marks[finished], (number, finished)


@pytest.mark.parametrize("config", [NoPruner(name="none"), MedianConfig()])
def test_other_pruners_leave_no_marks(config: PrunerSettings) -> None:
    curves = Curves(config, 8)
    trial = curves.start()
    storage = curves.study._storage
    storage.set_trial_system_attr(trial._trial_id, "completed_rung_0", 0.5)
    assert config.rung_marks_beyond(curves.study, storage.get_trial(trial._trial_id), 8, 0) == []


def test_a_view_in_finished_epochs_leaves_the_trial_alone() -> None:
    trial = optuna.create_trial(value=0.5, intermediate_values={0: 0.25, 1: 0.5})
    view = in_finished_epochs(trial)
    assert view.intermediate_values == {1: 0.25, 2: 0.5}
    assert trial.intermediate_values == {0: 0.25, 1: 0.5}
    assert view.last_step == 2
