"""What people read when a trial was pruned."""

from __future__ import annotations

import optuna

from skdtune.search.rank import describe_rank


def trials_with(*curves: dict[int, float]) -> list[optuna.trial.FrozenTrial]:
    found = [optuna.create_trial(value=0.5, intermediate_values=curve) for curve in curves]
    for number, trial in enumerate(found):
        trial.number = number
    return found


def test_a_rank_says_what_a_trial_was_compared_with() -> None:
    trials = trials_with({2: 0.9}, {2: 0.3}, {2: 0.5}, {2: 0.7}, {2: 0.8}, {2: 0.6}, {0: 0.99})
    assert describe_rank(trials, 2, 2, 0.5) == (
        "after epoch 3 with 50.00%: place 5 of the 6 trials seen there, median of the others "
        "70.00%; ahead: trial 0 90.00%, trial 4 80.00%, trial 3 70.00%"
    )


def test_the_best_has_nobody_ahead() -> None:
    assert describe_rank(trials_with({0: 0.9}, {0: 0.2}), 0, 0, 0.9) == (
        "after epoch 1 with 90.00%: place 1 of the 2 trials seen there, "
        "median of the others 20.00%"
    )


def test_equals_share_a_place() -> None:
    sentence = describe_rank(trials_with({0: 0.5}, {0: 0.5}, {0: 0.7}), 0, 0, 0.5)
    assert "place 2 of the 3" in sentence
    assert sentence.endswith("ahead: trial 2 70.00%")


def test_alone_at_an_epoch_there_is_no_rank() -> None:
    assert describe_rank(trials_with({0: 0.5}, {1: 0.9}), 0, 0, 0.5) == (
        "after epoch 1 with 50.00%"
    )
