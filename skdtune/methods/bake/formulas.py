"""Batch knowledge ensembling (BAKE): its formulas.

Tensor shapes: B batch, C channels, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skdtune.methods.functional import upcast


def bake_targets(
    logits_BK: Tensor, features_BC: Tensor, omega: float, temperature: float
) -> Tensor:
    """Soft targets that each image takes over from the images of the batch that resemble it.

    ``Q = (1 - omega) (I - omega W)^-1 softmax(z/T)``, where W is the row-wise softmax of the
    cosine similarities of the features, the own one excluded: the limit of passing predictions on
    again and again. A batch of one image gives its own prediction. The loss is
    :func:`distillation_kl_to_probs`. No gradient goes anywhere; the inside is float64.

    Source: BAKE (arXiv 2104.13298) and its public code.

    Args:
        logits_BK: logits z.
        features_BC: input of the last linear layer.
        omega: share that comes from others, from 0 (own prediction) to below 1 (singular).
        temperature: T above 0.

    Returns:
        Targets Q ``[B, K]``, rows that sum to 1, without gradient.
    """
    with torch.no_grad():
        # Autocast would halve the precision of float32, not of float64.
        unit_BC = F.normalize(features_BC.double(), dim=-1, eps=1e-12)
        # Not minus infinity: the softmax of a single image would be NaN.
        similarity_BB = (unit_BC @ unit_BC.T).fill_diagonal_(-1e9)
        system_BB = -omega * similarity_BB.softmax(dim=-1)
        system_BB.diagonal().add_(1)
        own_BK = F.softmax(logits_BK.double() / temperature, dim=-1)
        target_BK: Tensor = torch.linalg.solve(system_BB, (1 - omega) * own_BK)
        # Exactly, no entry is negative; a logarithm forgives no rounding.
        return target_BK.clamp(min=0).to(upcast(logits_BK).dtype)
