"""Distillation with reverse guidance (DRG): its formulas.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from skdtune.methods.functional import (
    cross_entropy,
    distillation_kl,
    distillation_kl_to_probs,
    upcast,
)

Teacher = Literal["mean_probs", "mean_logits"]


def drg_loss(
    logits_BK: Tensor,
    aux_logits: Sequence[Tensor],
    temperature: float,
    teacher: Teacher = "mean_probs",
) -> Tensor:
    """Distillation with reverse guidance: auxiliary classifiers teach the final classifier.

    ``KL_T(a -> z)`` for one stage. Several stages make one teacher, either the mean of their
    softened probabilities or the softened mean of their logits, which is sharper where the stages
    agree. The mean of their single divergences would have the same gradient as ``mean_probs``.

    Source: arXiv 2305.09183, DRG; several stages are ours.

    Args:
        logits_BK: logits z of the final classifier, which receive the gradient.
        aux_logits: logits ``[B, K]`` of each auxiliary classifier, at least one; detached here.
        temperature: T above 0.
        teacher: how several stages make one teacher; no matter for one stage.

    Returns:
        Scalar loss, at least 0 up to rounding.

    Raises:
        ValueError: if there are no auxiliary logits.
    """
    if not aux_logits:
        raise ValueError(
            "DRG needs the logits of at least one auxiliary classifier, received none"
        )
    if len(aux_logits) == 1:
        return distillation_kl(logits_BK, aux_logits[0], temperature)
    aux_SBK = torch.stack([upcast(aux_BK.detach()) for aux_BK in aux_logits])
    if teacher == "mean_logits":
        return distillation_kl(logits_BK, aux_SBK.mean(dim=0), temperature)
    target_BK = F.softmax(aux_SBK / temperature, dim=-1).mean(dim=0)
    return distillation_kl_to_probs(logits_BK, target_BK, temperature)


def auxiliary_cross_entropy(aux_logits: Sequence[Tensor], labels_B: Tensor) -> Tensor:
    """Cross-entropy of the auxiliary classifiers, ``(1/S) sum_s CE(a_s, y)``.

    A mean, so that the number of stages does not also change how hard they pull at the early
    layers.

    Source: arXiv 2305.09183, ``CE(a, y)`` of DRG; several stages are ours.

    Args:
        aux_logits: logits ``[B, K]`` of each auxiliary classifier, at least one.
        labels_B: class indices from 0 to K-1, int64.

    Returns:
        Scalar loss, at least 0.

    Raises:
        ValueError: if there are no auxiliary logits.
    """
    if not aux_logits:
        raise ValueError("the mean needs at least one auxiliary classifier, received none")
    return torch.stack([cross_entropy(aux_BK, labels_B) for aux_BK in aux_logits]).mean()
