"""What a network scores on images it does not learn from: accuracy, loss, calibration.

Tensor shapes: B batch, C channels, H height, W width, K classes, N images, P values of a profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skdtune.data.batches import Batch
from skdtune.methods.functional import cross_entropy
from skdtune.training.device import autocast

#: Bins of equal width that the expected calibration error sorts confidences into.
CALIBRATION_BINS = 15
#: Most values of a profile: what lies behind the hundred largest is next to nothing.
PROFILE_SIZE = 100

Observe = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Measurement:
    """What a network scores on a set of images."""

    accuracy: float
    """Share classified right, 0 to 1."""

    loss: float
    """Mean cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class Scores(Measurement):
    """What a network scores, with how far its confidence can be trusted."""

    top5: float
    """Share whose class is among the five most probable ones; of all, with fewer classes."""

    ece: float
    """Expected calibration error, 0 to 1: the mean distance of confidence and accuracy."""

    profile: list[float]
    """Mean of the sorted probabilities, largest first; at most ``PROFILE_SIZE`` values."""

    @property
    def nll(self) -> float:
        """Negative log-likelihood of the right classes in nats, which is the loss itself."""
        return self.loss


class MeanProfile:
    """Adds up how probability is shared out, whichever the classes are."""

    def __init__(self) -> None:
        self._sum_P: Tensor | None = None
        self._count = 0

    def add(self, logits_BK: Tensor, _labels_B: Tensor) -> None:
        """Take note of a batch; nothing leaves the device."""
        size = min(PROFILE_SIZE, logits_BK.shape[1])
        sorted_BP = logits_BK.float().softmax(dim=1).topk(size, sorted=True).values
        sum_P = sorted_BP.sum(dim=0, dtype=torch.float64)
        self._sum_P = sum_P if self._sum_P is None else self._sum_P + sum_P
        self._count += len(logits_BK)

    @property
    def values(self) -> list[float]:
        """The mean over all images that were added, largest first."""
        if self._sum_P is None:
            return []
        means: list[float] = (self._sum_P / self._count).tolist()
        return means


def measure(
    network: nn.Module,
    batches: Iterable[Batch],
    dtype: torch.dtype | None,
    device: torch.device,
    observe: Observe | None = None,
) -> Measurement:
    """Score the final classifier; the sums stay on the device until the end.

    Args:
        network: Maps images ``[B, C, H, W]`` to logits ``[B, K]``; left in evaluation mode.
        batches: Normalised images and labels.
        dtype: Type of autocast, None for float32.
        device: Where the batches lie.
        observe: Shown the logits ``[B, K]`` and labels ``[B]`` of every batch.
    """
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    with torch.inference_mode():
        for batch in batches:
            labels_B = batch.labels_B
            with autocast(dtype, device):
                logits_BK = network(batch.images_BCHW)
            correct += (logits_BK.argmax(dim=1) == labels_B).sum()
            loss += cross_entropy(logits_BK, labels_B).double() * len(labels_B)
            count += len(labels_B)
            if observe is not None:
                observe(logits_BK, labels_B)
    return Measurement(accuracy=correct.item() / count, loss=loss.item() / count)


def score(
    network: nn.Module,
    batches: Iterable[Batch],
    dtype: torch.dtype | None,
    device: torch.device,
    num_classes: int,
) -> Scores:
    """Score the final classifier with its calibration: once, after a training.

    Accuracy and loss are those of :func:`evaluate`. The probabilities of all images, ``[N, K]``,
    are gathered in the host's memory, where a full device cannot refuse them.

    Args:
        network: Maps images ``[B, C, H, W]`` to logits ``[B, K]``; left in evaluation mode.
        batches: Normalised images and labels.
        dtype: Type of autocast, None for float32.
        device: Where the batches lie.
        num_classes: Number of classes K.
    """
    profile = MeanProfile()
    probs: list[Tensor] = []
    labels: list[Tensor] = []

    def observe(logits_BK: Tensor, labels_B: Tensor) -> None:
        profile.add(logits_BK, labels_B)
        probs.append(logits_BK.float().softmax(dim=1).cpu())
        labels.append(labels_B.cpu())

    measured = measure(network, batches, dtype, device, observe)
    # Here, because it takes two seconds, which a trial that is pruned has no use for.
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_calibration_error,
    )

    # Weights that overflowed give no probabilities; the loss, which is then NaN, says so.
    probs_NK, labels_N = torch.nan_to_num(torch.cat(probs)), torch.cat(labels)
    top_k = min(5, num_classes)
    top5 = multiclass_accuracy(probs_NK, labels_N, num_classes, average="micro", top_k=top_k)
    # The expected calibration error of Naeini et al., AAAI 2015.
    ece = multiclass_calibration_error(
        probs_NK, labels_N, num_classes, n_bins=CALIBRATION_BINS, norm="l1"
    )
    return Scores(
        accuracy=measured.accuracy,
        loss=measured.loss,
        # It is a float32; the share itself is a whole number of images.
        top5=round(float(top5) * len(labels_N)) / len(labels_N),
        ece=float(ece),
        profile=profile.values,
    )
