"""Batch knowledge ensembling (BAKE): similar images of the batch teach each other.

Source: *Self-distillation with Batch Knowledge Ensembling Improves ImageNet Classification* (arXiv
2104.13298), https://arxiv.org/abs/2104.13298; public code github.com/yxgeee/BAKE.

    Q = (1 - omega) (I - omega W)^-1 softmax(z/T),   W from the similarities of the features
    L = CE(z, y) + weight * T^2 (1/B) KL(Q || softmax(z/T))
    published for CIFAR-100: weight 1, T = 4, omega 0.5, 3 companions

A batch holds anchors and, for each, companions of its class; the cross-entropy is over all rows.
An epoch visits every image once as an anchor, so it costs 1 + companions times the images.

What differs from the published code: companions are drawn from (seed, epoch) alone, so that a
training can be resumed; the linear system is solved in float64.

Tensor shapes: B batch, C channels, K classes.
"""

from __future__ import annotations

from torch import Tensor

from skdtune.methods.bake.formulas import bake_targets
from skdtune.methods.bake.settings import BakeConfig
from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.functional import distillation_kl_to_probs


class Bake(Term):
    """The divergence from targets that the batch makes together; no state, no module."""

    def __init__(self, settings: BakeConfig, context: BuildContext) -> None:
        """Build the term."""
        super().__init__()
        self.settings = settings

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``bake``; a weight of 0 skips everything.

        See :func:`~skdtune.methods.bake.formulas.bake_targets`.
        """
        settings = self.settings
        if settings.weight == 0:
            return {"bake": no_loss(step.logits_BK)}
        with outside_autocast(step.logits_BK):
            target_BK = bake_targets(
                step.logits_BK, step.pooled_BC, settings.omega, settings.temperature
            )
            loss = distillation_kl_to_probs(step.logits_BK, target_BK, settings.temperature)
        return {"bake": settings.weight * loss}
