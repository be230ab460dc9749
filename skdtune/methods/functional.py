"""The losses of all methods, as pure functions of tensors.

Every function computes in float32, or in float64 if it is given float64; bfloat16 and half inputs
are converted first. Everything goes through ``log_softmax``, so losses and gradients stay finite
for any logits a network can produce. A NaN in an input gives a NaN loss. All losses are
scalars, means over the batch, in nats.

Tensor shapes: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Teacher = Literal["mean_probs", "mean_logits"]
Pairing = Literal["row", "batch_mean"]


def cross_entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy with one-hot labels: ``-(1/B) sum_i log softmax(z_i)[y_i]``.

    Source: the label term ``CE(z, y)`` of arXiv 2305.09183.

    Args:
        logits_BK: logits z.
        labels_B: class indices y from 0 to K-1, int64.

    Returns:
        Scalar loss, at least 0.
    """
    return F.cross_entropy(_upcast(logits_BK), labels_B)


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
    log_probs_BK = F.log_softmax(_upcast(logits_BK), dim=-1)
    label_B = log_probs_BK.gather(-1, labels_B.unsqueeze(-1)).squeeze(-1)
    others_B = log_probs_BK.sum(dim=-1) - label_B
    return -((1 - smoothing) * label_B + smoothing / (num_classes - 1) * others_B).mean()


def distillation_kl(
    student_logits_BK: Tensor, teacher_logits_BK: Tensor, temperature: float
) -> Tensor:
    """Divergence of the student from a teacher's softened outputs, ``KL_T(teacher -> student)``.

    ``T^2 (1/B) sum_ij q_ij (log q_ij - log softmax(z_i/T)_j)`` with ``q = softmax(t/T)``. The
    teacher is detached. The gradient at the student's logits is ``(T/B)(softmax(z/T) - q)``.

    Source: arXiv 1503.02531, section 2, which also gives the factor T^2.

    Args:
        student_logits_BK: logits z that receive the gradient.
        teacher_logits_BK: logits t of the soft target.
        temperature: T above 0.

    Returns:
        Scalar loss, at least 0 up to rounding, exactly 0 for equal logits.
    """
    log_probs_BK = F.log_softmax(_upcast(student_logits_BK) / temperature, dim=-1)
    log_target_BK = F.log_softmax(_upcast(teacher_logits_BK.detach()) / temperature, dim=-1)
    divergence = F.kl_div(log_probs_BK, log_target_BK, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def distillation_kl_to_probs(
    student_logits_BK: Tensor, teacher_probs_BK: Tensor, temperature: float
) -> Tensor:
    """Divergence of the student from given probabilities; see :func:`distillation_kl`.

    ``0 log 0`` counts as 0. The target is detached.

    Source: arXiv 1503.02531, section 2, with the target given instead of computed.

    Args:
        student_logits_BK: logits z that receive the gradient.
        teacher_probs_BK: the soft target q, rows that sum to 1, already softened.
        temperature: T above 0, applied to the student and, squared, to the loss.

    Returns:
        Scalar loss, at least 0 up to rounding.
    """
    log_probs_BK = F.log_softmax(_upcast(student_logits_BK) / temperature, dim=-1)
    target_BK = _upcast(teacher_probs_BK.detach())
    return temperature**2 * F.kl_div(log_probs_BK, target_BK, reduction="batchmean")


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
    aux_SBK = torch.stack([_upcast(aux_BK.detach()) for aux_BK in aux_logits])
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


def ranked(logits_BK: Tensor) -> Tensor:
    """Sort each row of logits in ascending order; the gradient goes back to the old columns.

    Source: arXiv 2305.09183, DSR.

    Args:
        logits_BK: logits; the order among equal ones does not matter.

    Returns:
        Sorted logits ``[B, K]`` in float32 (or float64).
    """
    return _upcast(logits_BK).sort(dim=-1).values


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
        previous_BK = _upcast(previous_ranked_BK.detach()) / temperature
        target_K = F.softmax(previous_BK, dim=-1).mean(dim=0)
        return distillation_kl_to_probs(ranked_BK, target_K.expand(num_rows, -1), temperature)
    if num_rows != num_previous:
        rows_B = torch.arange(num_rows, device=previous_ranked_BK.device) % num_previous
        previous_ranked_BK = previous_ranked_BK[rows_B]
    return distillation_kl(ranked_BK, previous_ranked_BK, temperature)


def _upcast(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
