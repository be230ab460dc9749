from __future__ import annotations

import math

import pytest

from skdtune.analysis.verdict import PUBLISHED, compared, optimism, standard_error


def test_the_standard_error_is_that_of_a_share() -> None:
    assert standard_error(0.5, 400) == math.sqrt(0.25 / 400)
    assert standard_error(1.0, 400) == 0.0


@pytest.mark.parametrize(("accuracy", "num_images"), [(0.5, None), (0.5, 0), (1.5, 9), (-0.1, 9)])
def test_of_no_images_and_of_no_share_there_is_none(
    accuracy: float, num_images: int | None
) -> None:
    assert standard_error(accuracy, num_images) is None


@pytest.mark.parametrize(
    ("best", "reference", "num_images", "sentence"),
    [
        (0.9, 0.86, 301, "is 4.00 points above it, which chance alone can explain."),
        (0.9, 0.5, 301, "is 40.00 points above it."),
        (0.9, 0.86, None, "is 4.00 points above it."),
        (0.5, 0.9, 301, "is 40.00 points below it."),
        (0.9, 0.9, 301, "equals it, which chance alone can explain."),
    ],
)
def test_two_trials_are_compared_in_points_and_in_standard_errors(
    best: float, reference: float, num_images: int | None, sentence: str
) -> None:
    assert compared(best, reference, "it", num_images) == f"The best trial {sentence}"


def test_the_best_of_many_is_called_optimistic() -> None:
    assert "complete trials on the same 337 validation images is" in optimism(4, "337")
    assert "complete trials on the same validation images is" in optimism(4, "")
    assert PUBLISHED == "trial 0, the published setting"
