"""Distillation with shape-wise regularization (DSR): ranked outputs follow the batch before.

Source: *Lightweight Self-Knowledge Distillation with Multi-source Information Fusion* (arXiv
2305.09183), https://arxiv.org/abs/2305.09183; public code github.com/xucong-parsifal/LightSKD.

    L_t = CE(z_t, y_t) + weight * KL_T(r_{t-1} -> r_t),  r = sort(z)
    published: weight 1, T = 4

The first batch of an epoch has no batch before it and adds nothing; batches of different epochs
are never compared.

What differs from the published code: that remembers a batch only while DRG is on, so that DSR
alone distils from random noise, and it builds and trains an adapter that DSR does not use. Here
the temperature is DSR's own, batches may differ in size, and ``batch_mean`` is an alternative to
the published pairing of row i with row i.

Tensor shapes: B batch, K classes.
"""

from __future__ import annotations

from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.dsr.formulas import dsr_loss, ranked
from skdtune.methods.dsr.settings import DsrConfig


class Dsr(Term):
    """The divergence from the ranked outputs of the batch before, and the memory of them.

    State: the sorted logits ``[B, K]`` of the batch before, needed to resume in the middle of an
    epoch only: ``start_epoch`` forgets them.
    """

    def __init__(self, settings: DsrConfig, context: BuildContext) -> None:
        """Build the term with an empty memory."""
        super().__init__()
        self.settings = settings
        self._previous_ranked_BK: Tensor | None = None

    def start_epoch(self, epoch: int) -> None:
        """Forget the last batch of the epoch before."""
        self._previous_ranked_BK = None

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``dsr``, a zero in the first step of an epoch, and remember this batch.

        See :func:`~skdtune.methods.dsr.formulas.dsr_loss`. A weight of 0 skips everything.
        """
        settings, previous_BK = self.settings, self._previous_ranked_BK
        if settings.weight == 0:
            return {"dsr": no_loss(step.logits_BK)}
        with outside_autocast(step.logits_BK):
            ranked_BK = ranked(step.logits_BK)
            self._previous_ranked_BK = ranked_BK.detach()
            if previous_BK is None:
                return {"dsr": no_loss(step.logits_BK)}
            # A checkpoint may have brought the memory back on another device.
            previous_BK = previous_BK.to(ranked_BK.device)
            loss = dsr_loss(ranked_BK, previous_BK, settings.temperature, settings.pairing)
        return {"dsr": settings.weight * loss}

    def get_extra_state(self) -> dict[str, Tensor | None]:
        """Hand the memory to the state dict."""
        return {"previous_ranked_BK": self._previous_ranked_BK}

    def set_extra_state(self, state: dict[str, Tensor | None]) -> None:
        """Take the memory back from a state dict."""
        self._previous_ranked_BK = state["previous_ranked_BK"]
