"""Teacher-free distillation, regularization (TF-KD reg): its formulas.

Tensor shapes: B batch, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skdtune.methods.functional import distillation_kl, upcast


def tf_kd_reg_loss(
    logits_BK: Tensor, labels_B: Tensor, correct_prob: float, temperature: float
) -> Tensor:
    """Divergence from a designed teacher, as a mean over batch AND classes.

    ``(1/(BK)) sum_ij q_ij (log q_ij - log softmax(z_i)_j)`` with ``q = softmax(u/T)``, where u is
    ``correct_prob`` for the label and the rest spread over the others. The softmax is taken of
    these PROBABILITIES, so q is nearly uniform. The temperature softens the teacher alone and
    there is no T^2, both as published.

    Source: TF-KD reg (arXiv 1909.11723) and its public code.

    Args:
        logits_BK: logits z with K of at least 2.
        labels_B: class indices y from 0 to K-1, int64.
        correct_prob: what the teacher gives to the label, from 0 to 1.
        temperature: T above 0 of the teacher.

    Returns:
        Scalar loss, at least 0 up to rounding.

    Raises:
        ValueError: if there is only one class.
    """
    num_classes = logits_BK.shape[-1]
    if num_classes < 2:
        raise ValueError(f"TF-KD reg needs at least 2 classes, received {num_classes}")
    logits_BK = upcast(logits_BK)
    teacher_BK = torch.full_like(logits_BK, (1 - correct_prob) / (num_classes - 1))
    teacher_BK.scatter_(-1, labels_B.unsqueeze(-1), correct_prob)
    return distillation_kl(logits_BK, teacher_BK / temperature, 1.0) / num_classes
