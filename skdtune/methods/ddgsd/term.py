"""Data-distortion guided self-distillation (DDGSD): two views of an image teach each other.

Source: *Data-Distortion Guided Self-Distillation for Deep Neural Networks* (AAAI 2019),
https://doi.org/10.1609/aaai.v33i01.33015565; no official code was found, the reference is that of
github.com/winycg/Self-KD-Lib.

    L = 0.5 CE over all 2B rows + weight [KL_T(b -> a) + KL_T(a -> b)]
        + feature_weight (mean(F_a) - mean(F_b))^2
    reference: weight 1, T = 4, feature_weight 5e-4

One forward over both views; each is detached where it teaches. The reference halves a
cross-entropy that is a mean already, and compares two scalars, the means of the pooled features
over batch and channels.

What differs from the reference: the distillation has a weight, the features can be left out, and
``linear`` compares the means of every channel.

Tensor shapes: B batch of views (twice the images), C channels, K classes.
"""

from __future__ import annotations

from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.ddgsd.formulas import mean_discrepancy
from skdtune.methods.ddgsd.settings import DdgsdConfig
from skdtune.methods.functional import distillation_kl


class Ddgsd(Term):
    """The divergences between two views, and the discrepancy of their features; no state."""

    def __init__(self, settings: DdgsdConfig, context: BuildContext) -> None:
        """Build the term."""
        super().__init__()
        self.settings = settings
        self._is_off = settings.weight == 0
        features = settings.match_features and settings.feature_weight > 0
        self._matches_features = features and not self._is_off

    @property
    def label_weight(self) -> float:
        """Half, as in the reference."""
        return 1.0 if self._is_off else 0.5

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``ddgsd`` and ``ddgsd_features``; a weight of 0 skips everything.

        See :func:`~skdtune.methods.functional.distillation_kl` and
        :func:`~skdtune.methods.ddgsd.formulas.mean_discrepancy`.
        """
        settings, zero = self.settings, no_loss(step.logits_BK)
        losses = {"ddgsd": zero, "ddgsd_features": zero}
        if self._is_off:
            return losses
        first_BK, second_BK = step.logits_BK.chunk(2)
        with outside_autocast(step.logits_BK):
            mutual = distillation_kl(first_BK, second_BK, settings.temperature)
            mutual = mutual + distillation_kl(second_BK, first_BK, settings.temperature)
            losses["ddgsd"] = settings.weight * mutual
            if self._matches_features:
                first_BC, second_BC = step.pooled_BC.chunk(2)
                discrepancy = mean_discrepancy(first_BC, second_BC, settings.discrepancy)
                losses["ddgsd_features"] = settings.feature_weight * discrepancy
        return losses
