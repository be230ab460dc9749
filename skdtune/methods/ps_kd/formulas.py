"""Progressive self-knowledge distillation (PS-KD): its formulas.

Tensor shapes: N training images, B batch, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from skdtune.methods.functional import upcast


def ps_kd_loss(logits_BK: Tensor, labels_B: Tensor, memory_BK: Tensor, alpha: float) -> Tensor:
    """Cross-entropy with labels that are mixed with remembered predictions.

    ``-(1/B) sum_ij q_ij log softmax(z_i)_j`` with ``q = (1 - alpha) onehot(y) + alpha m``. No
    temperature. The memory is detached.

    Source: PS-KD (arXiv 2006.12000).

    Args:
        logits_BK: logits z.
        labels_B: class indices y from 0 to K-1, int64.
        memory_BK: what the network predicted for these images an epoch ago, rows m that sum to 1.
        alpha: share of the memory, from 0 to 1, already grown with the epochs.

    Returns:
        Scalar loss, at least 0.
    """
    log_probs_BK = F.log_softmax(upcast(logits_BK), dim=-1)
    memory_BK = upcast(memory_BK.detach())
    remembered = -(memory_BK * log_probs_BK).sum(dim=-1).mean()
    return (1 - alpha) * F.nll_loss(log_probs_BK, labels_B) + alpha * remembered
