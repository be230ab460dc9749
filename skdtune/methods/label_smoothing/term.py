"""The label term with smoothed labels.

Source: *Rethinking the Inception Architecture for Computer Vision* (arXiv 1512.00567),
https://arxiv.org/abs/1512.00567, section 7, in the convention of the code of *Revisiting Knowledge
Distillation via Label Smoothing Regularization* (arXiv 1909.11723),
https://arxiv.org/abs/1909.11723: the smoothing goes to the K-1 other classes.

What differs: nothing from the latter; the former, and torch, spread it over all K classes.

Tensor shapes: B batch, K classes.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from skdtune.methods.base import BuildContext, Step, Term, outside_autocast
from skdtune.methods.label_smoothing.formulas import label_smoothing_loss
from skdtune.methods.label_smoothing.settings import LabelSmoothingConfig


class LabelSmoothing(Term):
    """Cross-entropy of the final classifier with smoothed labels; no state."""

    def __init__(self, settings: LabelSmoothingConfig, context: BuildContext) -> None:
        """Build the term from its smoothing.

        Raises:
            ValueError: if there is only one class, and so no other to smooth towards.
        """
        super().__init__()
        if context.num_classes < 2:
            raise ValueError(
                f"label_smoothing needs at least 2 classes, received {context.num_classes}"
            )
        self.smoothing = settings.smoothing

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``label_smoothing``.

        See :func:`~skdtune.methods.label_smoothing.formulas.label_smoothing_loss`.
        """
        with outside_autocast(step.logits_BK):
            loss = step.over_labels(
                partial(label_smoothing_loss, step.logits_BK, smoothing=self.smoothing)
            )
        return {"label_smoothing": step.label_weight * loss}
