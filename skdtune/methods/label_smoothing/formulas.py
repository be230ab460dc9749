"""The label term with smoothed labels: its formulas.

Tensor shapes: B batch, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from skdtune.methods.functional import upcast


def label_smoothing_loss(logits_BK: Tensor, labels_B: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with smoothed labels, ``smoothing`` spread over the K-1 other classes.

    ``-(1/B) sum_i [(1-eps) log p_i[y_i] + eps/(K-1) sum_{j != y_i} log p_i[j]]``.

    Source: arXiv 1512.00567, section 7, in the convention of arXiv 1909.11723 and its public
    code. The former, and torch, spread eps over all K classes: this eps is theirs times (K-1)/K.

    Args:
        logits_BK: logits z with K of at least 2.
        labels_B: class indices y from 0 to K-1, int64.
        smoothing: eps from 0 to 1.

    Returns:
        Scalar loss, at least 0.

    Raises:
        ValueError: if there is only one class.
    """
    num_classes = logits_BK.shape[-1]
    if num_classes < 2:
        raise ValueError(f"label smoothing needs at least 2 classes, received {num_classes}")
    log_probs_BK = F.log_softmax(upcast(logits_BK), dim=-1)
    label_B = log_probs_BK.gather(-1, labels_B.unsqueeze(-1)).squeeze(-1)
    others_B = log_probs_BK.sum(dim=-1) - label_B
    return -((1 - smoothing) * label_B + smoothing / (num_classes - 1) * others_B).mean()
