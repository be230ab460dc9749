"""Accuracy and loss of a network on images it does not learn from.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from skdtune.data.batches import Batch
from skdtune.methods.functional import cross_entropy
from skdtune.training.device import autocast


@dataclass(frozen=True)
class Evaluation:
    """What a network scores on a set of images."""

    accuracy: float
    """Share classified right, 0 to 1."""

    loss: float
    """Mean cross-entropy."""


def evaluate(
    network: nn.Module,
    batches: Iterable[Batch],
    dtype: torch.dtype | None,
    device: torch.device,
) -> Evaluation:
    """Score the final classifier; the sums stay on the device until the end.

    Args:
        network: Maps images ``[B, C, H, W]`` to logits ``[B, K]``; left in evaluation mode.
        batches: Normalised images and labels.
        dtype: Type of autocast, None for float32.
        device: Where the batches lie.
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
    return Evaluation(accuracy=correct.item() / count, loss=loss.item() / count)
