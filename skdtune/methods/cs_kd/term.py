"""Class-wise self-knowledge distillation (CS-KD): another image of the class is the teacher.

Source: *Regularizing Class-wise Predictions via Self-knowledge Distillation* (arXiv 2003.13964),
https://arxiv.org/abs/2003.13964; public code github.com/alinlab/cs-kd.

    L = CE(z, y) + weight * KL_T(z' -> z)        published: weight 1 (3 for fine-grained), T = 4

z' are the logits of a partner of the same class, from a forward of its own in training mode: as
published, the statistics of batch normalization are taken over each half, and the partners update
the running ones too. The cross-entropy is that of the anchors alone.

What differs from the published code: partners are drawn from (seed, epoch) alone, so that a
training can be resumed.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.cs_kd.settings import CsKdConfig
from skdtune.methods.functional import distillation_kl


class CsKd(Term):
    """The divergence from the partners' softened outputs; no state, no module."""

    def __init__(self, settings: CsKdConfig, context: BuildContext) -> None:
        """Build the term."""
        super().__init__()
        self.settings = settings

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``cs_kd``, with a second forward of the network without gradient.

        See :func:`~skdtune.methods.functional.distillation_kl`. A weight of 0 skips everything.
        """
        settings = self.settings
        if settings.weight == 0:
            return {"cs_kd": no_loss(step.logits_BK)}
        with torch.no_grad():
            partner_BK = step.network(step.second_BCHW).logits_BK
        with outside_autocast(step.logits_BK):
            loss = distillation_kl(step.logits_BK, partner_BK, settings.temperature)
        return {"cs_kd": settings.weight * loss}
