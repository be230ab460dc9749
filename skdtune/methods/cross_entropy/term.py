"""The label term of the baseline: plain cross-entropy.

Source: ``CE(z, y)`` of *Lightweight Self-Knowledge Distillation with Multi-source Information
Fusion* (arXiv 2305.09183), https://arxiv.org/abs/2305.09183; public code
github.com/xucong-parsifal/LightSKD.

What differs from the published code: that adds a constant 100 to the loss of every step, and has
no plain baseline, since the cross-entropy of the adapter stays when both methods are off.

Tensor shapes: B batch, K classes.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, outside_autocast
from skdtune.methods.cross_entropy.settings import CrossEntropyConfig
from skdtune.methods.functional import cross_entropy


class CrossEntropy(Term):
    """Cross-entropy of the final classifier; no state."""

    def __init__(self, settings: CrossEntropyConfig, context: BuildContext) -> None:
        """Build the term; it needs to know nothing."""
        super().__init__()

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``cross_entropy``; see :func:`~skdtune.methods.functional.cross_entropy`."""
        with outside_autocast(step.logits_BK):
            loss = step.over_labels(partial(cross_entropy, step.logits_BK))
        return {"cross_entropy": step.label_weight * loss}
