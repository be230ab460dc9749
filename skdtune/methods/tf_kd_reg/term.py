"""Teacher-free distillation, regularization (TF-KD reg): the target is made by hand.

Source: *Revisiting Knowledge Distillation via Label Smoothing Regularization* (arXiv 1909.11723),
https://arxiv.org/abs/1909.11723; public code
github.com/yuanli2333/Teacher-free-Knowledge-Distillation.

    u_j = correct_prob for the label, the rest shared by the others;   q = softmax(u / T)
    L = (1 - weight) CE(z, y) + weight * multiplier * KLmean(q -> z)
    published for ResNet-18 and 100 classes: weight 0.1, T = 20, multiplier 100, correct_prob 0.99

As published the softmax is taken of probabilities, so that q is nearly uniform and T has next to
no influence, and the network's output is not softened. KLmean divides by B and by K: the number of
classes as multiplier makes it a mean over the batch alone.

What differs from the published code: nothing but the multiplier's default.

Tensor shapes: B batch, K classes.
"""

from __future__ import annotations

from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.tf_kd_reg.formulas import tf_kd_reg_loss
from skdtune.methods.tf_kd_reg.settings import TfKdRegConfig


class TfKdReg(Term):
    """The divergence from a target made by hand; no state, no module."""

    def __init__(self, settings: TfKdRegConfig, context: BuildContext) -> None:
        """Build the term."""
        super().__init__()
        self.settings = settings
        self.multiplier = settings.multiplier or float(context.num_classes)

    @property
    def label_weight(self) -> float:
        """The share of the labels, ``1 - weight``."""
        return 1 - self.settings.weight

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``tf_kd_reg``; a weight of 0 skips everything.

        See :func:`~skdtune.methods.tf_kd_reg.formulas.tf_kd_reg_loss`.
        """
        settings = self.settings
        if settings.weight == 0:
            return {"tf_kd_reg": no_loss(step.logits_BK)}
        with outside_autocast(step.logits_BK):
            loss = tf_kd_reg_loss(
                step.logits_BK, step.labels_B, settings.correct_prob, settings.temperature
            )
        return {"tf_kd_reg": settings.weight * self.multiplier * loss}
