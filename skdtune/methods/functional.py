"""The losses of all methods, as pure functions of tensors.

Every function computes in float32, or in float64 if it is given float64; bfloat16 and half inputs
are converted first. Everything goes through ``log_softmax``, so losses and gradients stay finite
for any logits a network can produce. A NaN in an input gives a NaN loss. All losses are
scalars, means over the batch, in nats, where nothing else is said.

Tensor shapes: B batch, K classes, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Teacher = Literal["mean_probs", "mean_logits"]
Pairing = Literal["row", "batch_mean"]
Discrepancy = Literal["scalar", "linear"]


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


def soft_cross_entropy(
    student_logits_BK: Tensor, teacher_logits_BK: Tensor, temperature: float
) -> Tensor:
    """Cross-entropy of the student with a teacher's softened outputs, ``T^2 SCE_T(t -> z)``.

    ``-T^2 (1/B) sum_ij q_ij log softmax(z_i/T)_j`` with ``q = softmax(t/T)``. It exceeds
    :func:`distillation_kl` by T^2 times the mean entropy of q and has the same gradient. The
    teacher is detached.

    Source: BYOT (arXiv 1905.08094), the branches' soft labels, as in
    github.com/luanyunteng/pytorch-be-your-own-teacher; the journal version's code leaves T^2 out.

    Args:
        student_logits_BK: logits z that receive the gradient.
        teacher_logits_BK: logits t of the soft target.
        temperature: T above 0.

    Returns:
        Scalar loss, at least 0.
    """
    log_probs_BK = F.log_softmax(_upcast(student_logits_BK) / temperature, dim=-1)
    target_BK = F.softmax(_upcast(teacher_logits_BK.detach()) / temperature, dim=-1)
    return -(temperature**2) * (target_BK * log_probs_BK).sum(dim=-1).mean()


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
    feature_BC, final_BC = _upcast(feature_BC), _upcast(final_feature_BC.detach())
    counted_BC = (feature_BC > 0) | (final_BC > 0)
    # A product, not a selection: NaN is not positive, and a selection would drop it.
    return ((feature_BC - final_BC).square() * counted_BC).sum()


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
    log_probs_BK = F.log_softmax(_upcast(logits_BK), dim=-1)
    memory_BK = _upcast(memory_BK.detach())
    remembered = -(memory_BK * log_probs_BK).sum(dim=-1).mean()
    return (1 - alpha) * F.nll_loss(log_probs_BK, labels_B) + alpha * remembered


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
    logits_BK = _upcast(logits_BK)
    teacher_BK = torch.full_like(logits_BK, (1 - correct_prob) / (num_classes - 1))
    teacher_BK.scatter_(-1, labels_B.unsqueeze(-1), correct_prob)
    return distillation_kl(logits_BK, teacher_BK / temperature, 1.0) / num_classes


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
        return target_BK.clamp(min=0).to(_upcast(logits_BK).dtype)


def mean_discrepancy(feature_a_BC: Tensor, feature_b_BC: Tensor, kind: Discrepancy) -> Tensor:
    """Squared difference of the mean features of two views; the gradient goes to both.

    ``scalar`` is the published one, the means taken over batch and channels alike. ``linear`` is
    the maximum mean discrepancy with a linear kernel, ``||mean_B a - mean_B b||^2``, a sum over
    the channels.

    Source: DDGSD (AAAI 2019), in the form of github.com/winycg/Self-KD-Lib; ``linear`` is ours.

    Args:
        feature_a_BC: pooled features of the first views.
        feature_b_BC: pooled features of the second views.
        kind: which means are compared.

    Returns:
        Scalar loss, at least 0, without unit.
    """
    feature_a_BC, feature_b_BC = _upcast(feature_a_BC), _upcast(feature_b_BC)
    if kind == "scalar":
        return (feature_a_BC.mean() - feature_b_BC.mean()).square()
    return (feature_a_BC.mean(dim=0) - feature_b_BC.mean(dim=0)).square().sum()


def attention_map(feature_BCHW: Tensor) -> Tensor:
    """Say where in a map the activity is: mean square over channels, of length 1.

    Source: attention transfer (arXiv 1612.03928), as FRSKD (arXiv 2103.08273) uses it.

    Args:
        feature_BCHW: a feature map.

    Returns:
        Attention ``[B, H*W]``, rows of Euclidean length 1, or 0 for a map of zeros.
    """
    energy_BHW = _upcast(feature_BCHW).square().mean(dim=1)
    return F.normalize(energy_BHW.flatten(1), dim=-1)


def attention_transfer_loss(feature_BCHW: Tensor, teacher_feature_BCHW: Tensor) -> Tensor:
    """Squared difference of two attention maps, a mean over batch and positions.

    At most ``2 / (H W)``, which is why its usual weight is as large as 100. The teacher is
    detached.

    Source: FRSKD (arXiv 2103.08273).

    Args:
        feature_BCHW: map of the backbone, which receives the gradient.
        teacher_feature_BCHW: refined map of the same height and width, of any channels.

    Returns:
        Scalar loss, at least 0, without unit.
    """
    target = attention_map(teacher_feature_BCHW.detach())
    return F.mse_loss(attention_map(feature_BCHW), target)


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
    scores_BK = _upcast(scores_BK.detach())
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
    logits_BK = _upcast(logits_BK)
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
        feature_map_BCHW = _upcast(feature_map_BCHW)
        weight_KC, bias_K = weight_KC.to(feature_map_BCHW), bias_K.to(feature_map_BCHW)
        logits_BKHW = F.conv2d(feature_map_BCHW, weight_KC[:, :, None, None], bias_K)
        if upsample:
            logits_BKHW = F.interpolate(
                logits_BKHW, scale_factor=2, mode="bilinear", align_corners=False
            )
        elected = logits_BKHW.argmax(dim=1).flatten(1)
        votes_BK = logits_BKHW.new_zeros(logits_BKHW.shape[:2])
        return votes_BK.scatter_add_(-1, elected, votes_BK.new_ones(elected.shape))


def _upcast(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
