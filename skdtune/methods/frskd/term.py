"""Feature refinement via self-knowledge distillation (FRSKD): a pyramid network teaches.

Source: *Refine Myself by Teaching Myself: Feature Refinement via Self-Knowledge Distillation*
(arXiv 2103.08273), https://arxiv.org/abs/2103.08273; public code github.com/MingiJi/FRSKD.

    L = CE(z, y) + CE(w, y) + weight * KL_T(w -> z)
        + attention_weight * sum_s mean((AT(x_s) - AT(v_s))^2)
    published for CIFAR-100: weight 2, T = 4, attention_weight 100, width 2, depth 2

The pyramid (``models/heads/bifpn.py``) takes the maps x_s of all stages, and gives refined maps
v_s and logits w, which are detached where they teach. Its own cross-entropy trains it and reaches
the backbone.

What differs from the published code: the attention can be left out, the pyramid's cross-entropy
has a weight, and it fits every backbone.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.frskd.formulas import attention_transfer_loss
from skdtune.methods.frskd.settings import FrskdConfig
from skdtune.methods.functional import cross_entropy, distillation_kl
from skdtune.models.heads.bifpn import BiFPN


class Frskd(Term):
    """The pyramid, its cross-entropy and what it teaches.

    State: the pyramid with its batch statistics. No memory between steps.
    """

    def __init__(self, settings: FrskdConfig, context: BuildContext) -> None:
        """Build the pyramid with fresh weights from torch's global generator."""
        super().__init__()
        self.settings = settings
        attention = settings.match_attention and settings.attention_weight > 0
        self._matches_attention = attention
        self._is_off = settings.weight == 0 and settings.aux_ce_weight == 0 and not attention
        if not self._is_off:
            shapes = context.stage_shapes
            self.stages = tuple(range(1, len(shapes) + 1))
            self.pyramid = BiFPN(
                shapes, context.num_classes, width=settings.width, depth=settings.depth
            )

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``frskd``, ``frskd_attention`` and ``frskd_ce``.

        See :func:`~skdtune.methods.functional.distillation_kl` and
        :func:`~skdtune.methods.frskd.formulas.attention_transfer_loss`.
        """
        zero = no_loss(step.logits_BK)
        losses = {"frskd": zero, "frskd_attention": zero, "frskd_ce": zero}
        if self._is_off:
            return losses
        settings = self.settings
        features = [step.stage_features[stage] for stage in self.stages]
        refined, refined_BK = self.pyramid(features)
        with outside_autocast(step.logits_BK):
            if settings.weight:
                loss = distillation_kl(step.logits_BK, refined_BK, settings.temperature)
                losses["frskd"] = settings.weight * loss
            if self._matches_attention:
                pairs = zip(features, refined, strict=True)
                matches = [attention_transfer_loss(x_BCHW, v_BCHW) for x_BCHW, v_BCHW in pairs]
                loss = torch.stack(matches).sum()
                losses["frskd_attention"] = settings.attention_weight * loss
            if settings.aux_ce_weight:
                loss = step.over_labels(partial(cross_entropy, refined_BK))
                losses["frskd_ce"] = settings.aux_ce_weight * loss
        return losses
