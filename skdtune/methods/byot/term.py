"""Be your own teacher (BYOT): the final classifier teaches auxiliary classifiers.

Source: *Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self
Distillation* (arXiv 1905.08094), https://arxiv.org/abs/1905.08094; loss of
github.com/luanyunteng/pytorch-be-your-own-teacher, heads of the authors' later
github.com/ArchipLab-LinfengZhang/pytorch-self-distillation-final.

    L = (1 - weight) [CE(z, y) + sum_k CE(b_k, y)] + weight sum_k T^2 SCE_T(z -> b_k)
        + feature_weight sum_k FEAT(f_k, f)
    published: weight 0.1, T = 3, feature_weight 1e-6, all stages but the last

The final logits and features are detached where they teach: the distillation shapes the early
stages, and reaches the final classifier through them alone.

What differs from the published code: the heads are the auxiliary classifiers of DRG, to be
comparable with it; the cross-entropy of the heads has a weight; the features can be left out.
Where a network has hidden layers before its classifier (VGG, MobileNetV3), the final features are
the mean of the last stage's output, which the heads' features can be compared with.

Tensor shapes: B batch, C channels, K classes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.byot.formulas import byot_feature_loss
from skdtune.methods.byot.settings import ByotConfig
from skdtune.methods.functional import cross_entropy, soft_cross_entropy
from skdtune.models.heads.auxiliary import (
    AuxiliaryHead,
    auxiliary_classifiers,
    mean_over_positions,
    stage_key,
)


class Byot(Term):
    """The auxiliary classifiers, their cross-entropy, and what they learn from the final one.

    State: the auxiliary classifiers with their batch statistics. No memory between steps.
    """

    def __init__(self, settings: ByotConfig, context: BuildContext) -> None:
        """Build the auxiliary classifiers with fresh weights from torch's global generator.

        Raises:
            ValueError: if a stage does not exist or is the last one.
        """
        super().__init__()
        self.settings = settings
        features = settings.match_features and settings.feature_weight > 0
        self._matches_features = features
        self._is_off = settings.weight == 0 and settings.aux_ce_weight == 0 and not features
        last = len(context.stage_shapes)
        self._taught = () if self._is_off else settings.stages or tuple(range(1, last))
        self._last = last
        self.stages = (*self._taught, last) if features else self._taught
        self.auxiliaries = auxiliary_classifiers(
            context.stage_shapes,
            self._taught,
            context.num_classes,
            align_corners=False,
            width=settings.adapter_width,
        )

    @property
    def label_weight(self) -> float:
        """The share of the labels, ``1 - weight``."""
        return 1 - self.settings.weight

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``byot``, ``byot_features`` and ``byot_ce``, each a sum over the stages.

        See :func:`~skdtune.methods.functional.soft_cross_entropy` and
        :func:`~skdtune.methods.byot.formulas.byot_feature_loss`.
        """
        settings, zero = self.settings, no_loss(step.logits_BK)
        losses = {"byot": zero, "byot_features": zero, "byot_ce": zero}
        if self._is_off:
            return losses
        pooled, logits = [], []
        for stage in self._taught:
            head = self.auxiliaries[stage_key(stage)]
            assert isinstance(head, AuxiliaryHead)
            pooled_BC, logits_BK = head.features_and_logits(step.stage_features[stage])
            pooled.append(pooled_BC)
            logits.append(logits_BK)
        with outside_autocast(step.logits_BK):
            if settings.weight:
                soft = [
                    soft_cross_entropy(logits_BK, step.logits_BK, settings.temperature)
                    for logits_BK in logits
                ]
                losses["byot"] = settings.weight * torch.stack(soft).sum()
            if self._matches_features:
                final_BC = step.pooled_BC
                if final_BC.shape[1] != pooled[0].shape[1]:
                    # A network with hidden layers before its classifier: what they begin with.
                    final_BC = mean_over_positions(step.stage_features[self._last])
                match = [byot_feature_loss(pooled_BC, final_BC) for pooled_BC in pooled]
                losses["byot_features"] = settings.feature_weight * torch.stack(match).sum()
            if settings.aux_ce_weight:
                hard = [
                    step.over_labels(partial(cross_entropy, logits_BK)) for logits_BK in logits
                ]
                share = (1 - settings.weight) * settings.aux_ce_weight
                losses["byot_ce"] = share * torch.stack(hard).sum()
        return losses
