"""Zipf's label smoothing: its formulas.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skdtune.methods.functional import upcast


def zipf_targets(scores_BK: Tensor, labels_B: Tensor, power: float) -> Tensor:
    """Soft targets for the classes beside the label, which fall with their rank.

    ``t_ij`` is proportional to ``r_ij^-power`` for ``j != y_i``, where the rank r is 1 more than
    the number of classes with a larger score, the label among them; equal scores share a rank.

    Source: Zipf's label smoothing (arXiv 2207.12980) and its public code.

    Args:
        scores_BK: votes or logits that order the classes; detached here. A row with a NaN gives a
            row of NaN.
        labels_B: class indices y from 0 to K-1, int64; K is at least 2.
        power: exponent of at least 0; 0 is uniform.

    Returns:
        Targets ``[B, K]``, rows that sum to 1 with 0 at the label, without gradient.

    Raises:
        ValueError: if there is only one class.
    """
    num_classes = scores_BK.shape[-1]
    if num_classes < 2:
        raise ValueError(f"Zipf's targets need at least 2 classes, received {num_classes}")
    scores_BK = upcast(scores_BK.detach())
    ascending_BK = scores_BK.sort(dim=-1).values
    num_up_to_BK = torch.searchsorted(ascending_BK, scores_BK.contiguous(), right=True)
    rank_BK = (1 + num_classes - num_up_to_BK).to(scores_BK.dtype)
    rank_BK = rank_BK.masked_fill(scores_BK.isnan(), torch.nan)
    share_BK = rank_BK.pow(-power).scatter(-1, labels_B.unsqueeze(-1), 0)
    return share_BK / share_BK.sum(dim=-1, keepdim=True)


def zipf_loss(logits_BK: Tensor, scores_BK: Tensor, labels_B: Tensor, power: float) -> Tensor:
    """Divergence of the classes beside the label from Zipf's law.

    ``(1/B) sum_i KL(t_i || softmax over the K-1 other logits)`` with t of :func:`zipf_targets`.
    The label's own logit plays no part, not even if it is NaN. No temperature.

    Source: Zipf's label smoothing (arXiv 2207.12980).

    Args:
        logits_BK: logits that receive the gradient.
        scores_BK: what orders the classes, from :func:`dense_votes` or the logits; detached.
        labels_B: class indices y from 0 to K-1, int64; K is at least 2.
        power: exponent of at least 0.

    Returns:
        Scalar loss, at least 0 up to rounding.

    Raises:
        ValueError: if there is only one class.
    """
    logits_BK = upcast(logits_BK)
    target_BK = zipf_targets(scores_BK, labels_B, power).to(logits_BK.dtype)
    is_label_BK = torch.zeros_like(logits_BK, dtype=torch.bool)
    is_label_BK.scatter_(-1, labels_B.unsqueeze(-1), True)
    log_probs_BK = F.log_softmax(logits_BK.masked_fill(is_label_BK, -torch.inf), dim=-1)
    # The target is 0 there, and 0 times infinity would be NaN.
    log_probs_BK = log_probs_BK.masked_fill(is_label_BK, 0)
    return F.kl_div(log_probs_BK, target_BK, reduction="batchmean")


def dense_votes(
    feature_map_BCHW: Tensor, weight_KC: Tensor, bias_K: Tensor, upsample: bool
) -> Tensor:
    """Let every position of the last feature map vote for the class it would predict.

    The last linear layer is applied at each position.

    Source: Zipf's label smoothing (arXiv 2207.12980), dense classification.

    Args:
        feature_map_BCHW: output of the last stage, before the average.
        weight_KC: weight of the last linear layer.
        bias_K: its bias.
        upsample: whether the map of logits is first doubled in height and width, bilinearly.

    Returns:
        Votes ``[B, K]``, whole numbers whose rows sum to the number of positions, no gradient.
    """
    # Autocast would compute in half precision, whatever goes in.
    with torch.no_grad(), torch.autocast(feature_map_BCHW.device.type, enabled=False):
        feature_map_BCHW = upcast(feature_map_BCHW)
        weight_KC, bias_K = weight_KC.to(feature_map_BCHW), bias_K.to(feature_map_BCHW)
        logits_BKHW = F.conv2d(feature_map_BCHW, weight_KC[:, :, None, None], bias_K)
        if upsample:
            logits_BKHW = F.interpolate(
                logits_BKHW, scale_factor=2, mode="bilinear", align_corners=False
            )
        elected = logits_BKHW.argmax(dim=1).flatten(1)
        votes_BK = logits_BKHW.new_zeros(logits_BKHW.shape[:2])
        return votes_BK.scatter_add_(-1, elected, votes_BK.new_ones(elected.shape))
