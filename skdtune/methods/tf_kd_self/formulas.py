"""Teacher-free distillation, self-training (TF-KD self): its formulas.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import Tensor

from skdtune.methods.functional import distillation_kl


def tf_kd_self_loss(logits_BK: Tensor, teacher_logits_BK: Tensor, temperature: float) -> Tensor:
    """Divergence from a teacher trained before, as a mean over batch AND classes.

    :func:`distillation_kl`, T^2 included, divided by K. The published multiplier and alpha are
    left to the caller. The teacher is detached.

    Source: TF-KD self (arXiv 1909.11723) and its public code.

    Args:
        logits_BK: logits that receive the gradient.
        teacher_logits_BK: logits of a frozen network of the same architecture.
        temperature: T above 0.

    Returns:
        Scalar loss, at least 0 up to rounding, exactly 0 for equal logits.
    """
    return distillation_kl(logits_BK, teacher_logits_BK, temperature) / logits_BK.shape[-1]
