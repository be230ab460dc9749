"""Self-distillation from the last mini-batch (DLB): its second views are classified again.

Source: *Self-Distillation from the Last Mini-Batch for Consistency Regularization* (arXiv
2203.16172), https://arxiv.org/abs/2203.16172; public code github.com/Meta-knowledge-Lab/DLB.

    z_t = f(x_t),  u_t = f(x'_{t-1})  (evaluated now),  teacher z_{t-1}  (from the step before)
    L = CE over the rows of [u_t, z_t] + weight * KL_T(z_{t-1} -> u_t);   first step: CE(z_t, y_t)

x' is the second view of an image. The cross-entropy is one mean over the rows of both batches, so
the label term has the share of its own: half, where the batches are of one size. The memory goes
on across epochs. Two forwards in training mode, z_t first.

What differs from the published code: nothing has a default there; 3 is the temperature in the
name it gives its results, and weight 1 is neutral. The memory is part of a checkpoint.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import Tensor

from skdtune.data.batches import Batch
from skdtune.methods.base import BuildContext, Step, Term, no_loss, outside_autocast
from skdtune.methods.dlb.settings import DlbConfig
from skdtune.methods.functional import cross_entropy, distillation_kl


class Dlb(Term):
    """Cross-entropy and distillation of the last batch's second views, and that batch.

    State: second views ``[B, C, H, W]``, labels and logits of the batch before, also at the end
    of an epoch.
    """

    def __init__(self, settings: DlbConfig, context: BuildContext) -> None:
        """Build the term with an empty memory."""
        super().__init__()
        self.settings = settings
        self._last: dict[str, Tensor] | None = None

    def label_weight_of(self, batch: Batch) -> float:
        """The share of the batch among the rows of both, as soon as there is a batch before."""
        if self._last is None:
            return 1.0
        num_rows = len(batch.labels_B)
        return num_rows / (num_rows + len(self._last["labels_B"]))

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute ``dlb`` and ``dlb_ce``, zeros in the first step of all, and remember the batch.

        See :func:`~skdtune.methods.functional.distillation_kl`. A weight of 0 skips everything.
        """
        if self.settings.weight == 0:
            return {"dlb": no_loss(step.logits_BK), "dlb_ce": no_loss(step.logits_BK)}
        last = self._last
        self._last = {
            "images_BCHW": step.second_BCHW,
            "labels_B": step.labels_B,
            "logits_BK": step.logits_BK.detach(),
        }
        if last is None:
            return {"dlb": no_loss(step.logits_BK), "dlb_ce": no_loss(step.logits_BK)}
        # A checkpoint may have brought the memory back on another device.
        last = {name: tensor.to(step.logits_BK.device) for name, tensor in last.items()}
        num_rows = len(last["labels_B"])
        share = num_rows / (num_rows + len(step.labels_B))
        again_BK = step.network(last["images_BCHW"]).logits_BK
        with outside_autocast(step.logits_BK):
            loss = distillation_kl(again_BK, last["logits_BK"], self.settings.temperature)
            return {
                "dlb": self.settings.weight * loss,
                "dlb_ce": share * cross_entropy(again_BK, last["labels_B"]),
            }

    def get_extra_state(self) -> dict[str, Tensor] | None:
        """Hand the memory to the state dict."""
        return self._last

    def set_extra_state(self, state: dict[str, Tensor] | None) -> None:
        """Take the memory back from a state dict."""
        self._last = state
