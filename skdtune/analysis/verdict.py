"""What the best of many validation accuracies is worth, in numbers and in words."""

from __future__ import annotations

import math

#: What trial 0 is called where others are compared with it.
PUBLISHED = "trial 0, the published setting"


def standard_error(accuracy: float, num_images: int | None) -> float | None:
    """Return the binomial standard error of an accuracy; None if its images are not known."""
    if not num_images or not 0 <= accuracy <= 1:
        return None
    return math.sqrt(accuracy * (1 - accuracy) / num_images)


def compared(best: float, reference: float, name: str, num_images: int | None) -> str:
    """Compare the best trial with another, in points and in standard errors.

    Args:
        best: Its accuracy.
        reference: The other's.
        name: What the other one is.
        num_images: Images behind both.
    """
    difference = best - reference
    where = "above" if difference > 0 else "below"
    sentence = f"The best trial is {abs(difference) * 100:.2f} points {where} {name}"
    if difference == 0:
        sentence = f"The best trial equals {name}"
    error = standard_error(reference, num_images)
    # The difference of two accuracies on the same images; independent errors are the safe side.
    chance = error is not None and abs(difference) < 2 * 2**0.5 * error
    return f"{sentence}, which chance alone can explain." if chance else f"{sentence}."


def optimism(num_complete: int, images: str) -> str:
    """Say that the best of many is an optimistic number.

    Args:
        num_complete: Complete trials that it is the best of.
        images: Their number, as text; empty where it is not told.
    """
    return (
        f"The best of {num_complete} complete trials on the same {f'{images} ' if images else ''}"
        "validation images is an optimistic number."
    )
