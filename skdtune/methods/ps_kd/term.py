"""Progressive self-knowledge distillation (PS-KD): labels are mixed with remembered predictions.

Source: *Self-Knowledge Distillation with Progressive Refinement of Targets* (arXiv 2006.12000),
https://arxiv.org/abs/2006.12000; public code github.com/lgcnsai/PS-KD-Pytorch.

    q_i = (1 - a) onehot(y_i) + a M[i],   a = weight * (epoch + 1) / planned epochs
    L = -(1/B) sum_ij q_ij log softmax(z_i)_j;   then M[i] = softmax(z_i)
    published: weight 0.8

No temperature. What is remembered is the prediction for the augmented image of the step itself.

What differs from the published code: the horizon is the planned one, whatever ends the training
earlier; the memory lies on the training device; an image that was not seen yet, because the last,
smaller batch is dropped, counts as remembered right, as all do in the first epoch.

Tensor shapes: N training images, B batch, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, outside_autocast
from skdtune.methods.functional import cross_entropy
from skdtune.methods.ps_kd.formulas import ps_kd_loss
from skdtune.methods.ps_kd.settings import PsKdConfig


class PsKd(Term):
    """The label term with refined targets, and the memory of the last predictions.

    State: the predictions ``[N, K]`` of the epoch before, and which of them there are.
    """

    memory_NK: Tensor
    seen_N: Tensor

    def __init__(self, settings: PsKdConfig, context: BuildContext) -> None:
        """Build the term with an empty memory."""
        super().__init__()
        self.weight = settings.weight
        size = context.num_train if settings.weight else 0
        self.register_buffer("memory_NK", torch.zeros(size, context.num_classes))
        self.register_buffer("seen_N", torch.zeros(size, dtype=torch.bool))

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``ps_kd`` and remember this batch; a weight of 0 is plain cross-entropy.

        See :func:`~skdtune.methods.ps_kd.formulas.ps_kd_loss`.
        """
        indices_B, labels_B, memory_NK = step.batch.indices_B, step.labels_B, self.memory_NK
        with outside_autocast(step.logits_BK):
            if self.weight == 0:
                loss = cross_entropy(step.logits_BK, labels_B)
            else:
                share = self.weight * (step.epoch + 1) / step.planned_epochs
                onehot_BK = F.one_hot(labels_B, memory_NK.shape[1]).to(memory_NK)
                seen_B1 = self.seen_N[indices_B, None]
                remembered_BK = torch.where(seen_B1, memory_NK[indices_B], onehot_BK)
                loss = ps_kd_loss(step.logits_BK, labels_B, remembered_BK, min(1.0, share))
                probs_BK = F.softmax(step.logits_BK.detach().to(memory_NK.dtype), dim=-1)
                memory_NK.index_copy_(0, indices_B, probs_BK)
                self.seen_N.index_fill_(0, indices_B, True)
        return {"ps_kd": step.label_weight * loss}
