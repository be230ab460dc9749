"""Zipf's label smoothing: the other classes follow a power law of their ranks.

Source: *Efficient One Pass Self-distillation with Zipf's Label Smoothing* (arXiv 2207.12980),
https://arxiv.org/abs/2207.12980; public code github.com/megvii-research/zipfls.

    t_ij = rank_ij^-power for j != y_i, normalised over the K-1 other classes
    L = CE(z, y) + weight (1/B) sum_i KL(t_i || softmax over the K-1 other logits)
    published for CIFAR-100: weight 0.1, power 1, dense ranking

Dense ranking counts the votes of all positions of the last feature map, classified by the final
linear layer; the map of logits is doubled first. No temperature; the target is detached.

What differs from the published code: ranks are computed on the device, and the two heads that it
builds and does not use are left out.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.zipf.formulas import dense_votes, zipf_loss
from skdtune.methods.zipf.settings import ZipfConfig


class Zipf(Term):
    """The divergence of the other classes from Zipf's law; no state, no module."""

    def __init__(self, settings: ZipfConfig, context: BuildContext) -> None:
        """Build the term."""
        super().__init__()
        self.settings = settings
        self._last_stage = len(context.stage_shapes)
        if settings.weight and settings.dense:
            self.stages = (self._last_stage,)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``zipf``; a weight of 0 skips everything.

        See :func:`~skdtune.methods.zipf.formulas.zipf_loss`.
        """
        settings = self.settings
        if settings.weight == 0:
            return {"zipf": no_loss(step.logits_BK)}
        with outside_autocast(step.logits_BK):
            scores_BK = step.logits_BK.detach()
            if settings.dense:
                classifier = step.network.classifier
                scores_BK = dense_votes(
                    step.stage_features[self._last_stage],
                    classifier.weight,
                    classifier.bias,
                    settings.upsample,
                )
            loss = zipf_loss(step.logits_BK, scores_BK, step.labels_B, settings.power)
        return {"zipf": settings.weight * loss}
