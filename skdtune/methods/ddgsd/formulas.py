"""Data-distortion guided self-distillation (DDGSD): its formulas.

Tensor shapes: B batch of views (twice the images), C channels, K classes.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from skdtune.methods.functional import upcast

Discrepancy = Literal["scalar", "linear"]


def mean_discrepancy(feature_a_BC: Tensor, feature_b_BC: Tensor, kind: Discrepancy) -> Tensor:
    """Squared difference of the mean features of two views; the gradient goes to both.

    ``scalar`` is the published one, the means taken over batch and channels alike. ``linear`` is
    the maximum mean discrepancy with a linear kernel, ``||mean_B a - mean_B b||^2``, a sum over
    the channels.

    Source: DDGSD (AAAI 2019), in the form of github.com/winycg/Self-KD-Lib; ``linear`` is ours.

    Args:
        feature_a_BC: pooled features of the first views.
        feature_b_BC: pooled features of the second views.
        kind: which means are compared.

    Returns:
        Scalar loss, at least 0, without unit.
    """
    feature_a_BC, feature_b_BC = upcast(feature_a_BC), upcast(feature_b_BC)
    if kind == "scalar":
        return (feature_a_BC.mean() - feature_b_BC.mean()).square()
    return (feature_a_BC.mean(dim=0) - feature_b_BC.mean(dim=0)).square().sum()
