"""Distillation with shape-wise regularization (DSR): its formulas.

Tensor shapes: B batch, K classes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from skdtune.methods.functional import distillation_kl, distillation_kl_to_probs, upcast

Pairing = Literal["row", "batch_mean"]


def ranked(logits_BK: Tensor) -> Tensor:
    """Sort each row of logits in ascending order; the gradient goes back to the old columns.

    Source: arXiv 2305.09183, DSR.

    Args:
        logits_BK: logits; the order among equal ones does not matter.

    Returns:
        Sorted logits ``[B, K]`` in float32 (or float64).
    """
    return upcast(logits_BK).sort(dim=-1).values


def dsr_loss(
    ranked_BK: Tensor,
    previous_ranked_BK: Tensor,
    temperature: float,
    pairing: Pairing = "row",
) -> Tensor:
    """Distillation with shape-wise regularization: ranked outputs follow the batch before.

    ``KL_T(r_{t-1} -> r_t)`` with ``r = sort(z)``: which class stands where is ignored, only the
    profile of the probabilities counts. ``row`` pairs row i with row i of the batch before, or
    with row ``i mod B_prev`` where the sizes differ. ``batch_mean`` gives all rows one target,
    the mean of ``softmax(r_{t-1}/T)``: over random pairings ``row`` has the same mean gradient.

    Source: arXiv 2305.09183, DSR; ``batch_mean`` and unequal sizes are ours.

    Args:
        ranked_BK: sorted logits of this batch, from :func:`ranked`.
        previous_ranked_BK: sorted logits ``[B_prev, K]`` of the batch before; detached here.
        temperature: T above 0.
        pairing: target of each row.

    Returns:
        Scalar loss, at least 0 up to rounding.
    """
    num_rows, num_previous = len(ranked_BK), len(previous_ranked_BK)
    if pairing == "batch_mean":
        previous_BK = upcast(previous_ranked_BK.detach()) / temperature
        target_K = F.softmax(previous_BK, dim=-1).mean(dim=0)
        return distillation_kl_to_probs(ranked_BK, target_K.expand(num_rows, -1), temperature)
    if num_rows != num_previous:
        rows_B = torch.arange(num_rows, device=previous_ranked_BK.device) % num_previous
        previous_ranked_BK = previous_ranked_BK[rows_B]
    return distillation_kl(ranked_BK, previous_ranked_BK, temperature)
