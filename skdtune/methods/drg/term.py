"""Distillation with reverse guidance (DRG): shallow classifiers teach the final one.

Source: *Lightweight Self-Knowledge Distillation with Multi-source Information Fusion* (arXiv
2305.09183), https://arxiv.org/abs/2305.09183; public code github.com/xucong-parsifal/LightSKD.

    L = CE(z, y) + CE(a, y) + weight * KL_T(a -> z)        published: weight 0.2, T = 4, stage 2

The soft target is detached: the auxiliary classifier learns from its own cross-entropy alone,
which also reaches the stages below it, and the divergence reaches the backbone through z alone.

What differs from the published code: weight and temperature are really used (published, the
options for both are broken or ignored); any stages instead of stage 2; the weight of the
auxiliary cross-entropy can be set; the auxiliary classifiers fit every backbone (see
``models/heads/auxiliary.py``).

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.drg.formulas import auxiliary_cross_entropy, drg_loss
from skdtune.methods.drg.settings import DrgConfig
from skdtune.models.heads.auxiliary import auxiliary_classifiers, stage_key


class Drg(Term):
    """The auxiliary classifiers, their cross-entropy and what they teach.

    State: the auxiliary classifiers with their batch statistics. No memory between steps.
    """

    def __init__(self, settings: DrgConfig, context: BuildContext) -> None:
        """Build the auxiliary classifiers with fresh weights from torch's global generator.

        Raises:
            ValueError: if a stage does not exist or is the last one.
        """
        super().__init__()
        self.settings = settings
        self.stages = settings.stages
        self.auxiliaries = auxiliary_classifiers(
            context.stage_shapes,
            settings.stages,
            context.num_classes,
            settings.align_corners,
            settings.adapter_width,
        )

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``drg`` and ``aux_ce``.

        See :func:`~skdtune.methods.drg.formulas.drg_loss` and
        :func:`~skdtune.methods.drg.formulas.auxiliary_cross_entropy`. A weight of 0 skips its
        loss; the auxiliary classifiers run in any case.
        """
        settings, zero = self.settings, no_loss(step.logits_BK)
        losses = {"drg": zero, "aux_ce": zero}
        aux_logits: list[Tensor] = [
            self.auxiliaries[stage_key(stage)](step.stage_features[stage]) for stage in self.stages
        ]
        with outside_autocast(step.logits_BK):
            if settings.weight:
                loss = drg_loss(step.logits_BK, aux_logits, settings.temperature, settings.teacher)
                losses["drg"] = settings.weight * loss
            if settings.aux_ce_weight:
                loss = step.over_labels(partial(auxiliary_cross_entropy, aux_logits))
                losses["aux_ce"] = settings.aux_ce_weight * loss
        return losses
