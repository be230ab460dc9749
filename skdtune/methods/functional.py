"""The losses that methods share, as pure functions of tensors; and from here those of each method.

Every function computes in float32, or in float64 if it is given float64; bfloat16 and half inputs
are converted first. Everything goes through ``log_softmax``, so losses and gradients stay finite
for any logits a network can produce. A NaN in an input gives a NaN loss. All losses are
scalars, means over the batch, in nats, where nothing else is said.

What belongs to one method lies in its folder, in ``formulas.py``, and can be imported from here
under its name too.

Tensor shapes: B batch, K classes, C channels, H height, W width.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skdtune.catalogues.methods import METHODS


def __getattr__(name: str) -> Any:
    for method in METHODS.built_in if not name.startswith("_") else ():
        module = f"skdtune.methods.{method}.formulas"
        if find_spec(module) is not None:
            formula = vars(importlib.import_module(module)).get(name)
            # What the module has imported itself is not its own; its types are of `typing`.
            if getattr(formula, "__module__", None) in (module, "typing"):
                return formula
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def cross_entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy with one-hot labels: ``-(1/B) sum_i log softmax(z_i)[y_i]``.

    Source: the label term ``CE(z, y)`` of arXiv 2305.09183.

    Args:
        logits_BK: logits z.
        labels_B: class indices y from 0 to K-1, int64.

    Returns:
        Scalar loss, at least 0.
    """
    return F.cross_entropy(upcast(logits_BK), labels_B)


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
    log_probs_BK = F.log_softmax(upcast(student_logits_BK) / temperature, dim=-1)
    log_target_BK = F.log_softmax(upcast(teacher_logits_BK.detach()) / temperature, dim=-1)
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
    log_probs_BK = F.log_softmax(upcast(student_logits_BK) / temperature, dim=-1)
    target_BK = upcast(teacher_probs_BK.detach())
    return temperature**2 * F.kl_div(log_probs_BK, target_BK, reduction="batchmean")


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
    log_probs_BK = F.log_softmax(upcast(student_logits_BK) / temperature, dim=-1)
    target_BK = F.softmax(upcast(teacher_logits_BK.detach()) / temperature, dim=-1)
    return -(temperature**2) * (target_BK * log_probs_BK).sum(dim=-1).mean()


def upcast(values: Tensor) -> Tensor:
    """Convert to float32, in which losses are computed; float64 stays what it is."""
    return values if values.dtype == torch.float64 else values.float()
