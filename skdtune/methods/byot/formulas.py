"""Be your own teacher (BYOT): its formulas.

Tensor shapes: B batch, C channels, K classes.
"""

from __future__ import annotations

from torch import Tensor

from skdtune.methods.functional import upcast


def byot_feature_loss(feature_BC: Tensor, final_feature_BC: Tensor) -> Tensor:
    """Squared distance of a branch's features from the final ones, where either is positive.

    ``sum_ic (f_ic - g_ic)^2 [f_ic > 0 or g_ic > 0]``, a SUM over batch and channels, which is why
    its usual weight is as small as 1e-6. The final features g are detached.

    Source: BYOT (arXiv 1905.08094), the loss from hints, as in
    github.com/luanyunteng/pytorch-be-your-own-teacher.

    Args:
        feature_BC: pooled features f of the branch, which receive the gradient.
        final_feature_BC: pooled features g of the network, with the same channels.

    Returns:
        Scalar loss, at least 0, without unit.
    """
    feature_BC, final_BC = upcast(feature_BC), upcast(final_feature_BC.detach())
    counted_BC = (feature_BC > 0) | (final_BC > 0)
    # A product, not a selection: NaN is not positive, and a selection would drop it.
    return ((feature_BC - final_BC).square() * counted_BC).sum()
