"""What every term of a method is, and what it gets to see.

A method is a list of terms. The trainer knows none of them by name: it draws batches by the plan
that their settings ask for, asks the network for the stages they read, calls each with the
:class:`Step`, adds up all the losses they return and saves their state dicts. To add a method, add
a folder with its settings and one :class:`Term`, and one line in the catalogue of methods.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skdtune.data.batches import Batch
from skdtune.describe.model_config import ModelConfig
from skdtune.models.backbone import Backbone
from skdtune.models.description import FeatureShape, StageShape


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training step as the terms see it."""

    batch: Batch
    """The images of the step with labels and indices, and a second image for each where the
    batch plan has one."""

    logits_BK: Tensor
    """Logits of the final classifier, in any floating-point type."""

    stage_features: dict[int, Tensor]
    """Outputs of the stages that the terms read, counted from 1: maps ``[B, C_s, H_s, W_s]``, or
    whatever a network without maps puts out."""

    pooled_BC: Tensor
    """Input ``[B, C]`` of the final classifier."""

    network: Backbone
    """The network in training mode, for terms that classify other images too."""

    epoch: int
    """The epoch, counted from 0."""

    planned_epochs: int
    """Epochs that the training was planned for, whatever ends it earlier."""

    label_weight: float = 1.0
    """Factor of the label term's loss: what the other terms leave to it."""

    @property
    def labels_B(self) -> Tensor:
        """Class indices of the batch, int64."""
        return self.batch.labels_B

    def over_labels(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute a loss that is linear in the labels, of images that may be mixed of two.

        Args:
            loss: Computes it for labels ``[B]``.
        """
        batch = self.batch
        own = loss(batch.labels_B)
        if batch.other_labels_B is None:
            return own
        return batch.label_share * own + (1 - batch.label_share) * loss(batch.other_labels_B)

    @property
    def second_BCHW(self) -> Tensor:
        """The second images of the batch.

        Raises:
            ValueError: if the batch plan has none.
        """
        if self.batch.second_BCHW is None:
            raise ValueError("the batch plan has no second images")
        return self.batch.second_BCHW


@dataclass(frozen=True)
class BuildContext:
    """What a term may need to know of network and data when it is built."""

    stage_shapes: tuple[StageShape, ...] | tuple[FeatureShape, ...]
    """Shapes of all stages of the backbone, first to last."""

    num_classes: int
    """Number of classes K."""

    num_train: int = 0
    """Number of training images N."""

    model: ModelConfig | None = None
    """Settings of the network; a frozen teacher must have the same."""


class Term(nn.Module):
    """One or more named losses, with whatever modules and memory they need.

    All that must survive a checkpoint lies in the state dict: parameters, buffers, and
    ``get_extra_state`` for the rest. A term draws no random numbers after it was built. The
    modules of a term are trained with the backbone and thrown away after training. A term whose
    weights are all zero leaves the training as it would be without it, bit by bit.
    """

    stages: tuple[int, ...] = ()
    """Stages whose outputs the term reads, counted from 1."""

    @property
    def label_weight(self) -> float:
        """What the term leaves to the label term in the next step, as a factor of its loss."""
        return 1.0

    def label_weight_of(self, batch: Batch) -> float:
        """What the term leaves to the label term in the step of a batch, where that matters.

        Args:
            batch: The batch of the next step.
        """
        return self.label_weight

    def start_epoch(self, epoch: int) -> None:
        """Prepare for an epoch, counted from 0; called before its first step.

        Who resumes in the middle of an epoch calls this first and loads the state afterwards.
        """

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Compute the losses of one step.

        May run inside autocast; the losses themselves are computed outside of it.

        Args:
            step: the batch and what the network made of it.

        Returns:
            Scalar float32 losses by name (float64 if the logits are), already weighted. The
            names are the same in every step; a loss that is switched off is a zero.
        """
        raise NotImplementedError


def outside_autocast(tensor: Tensor) -> torch.autocast:
    """Suspend autocast on the device of a tensor, to compute losses in full precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def no_loss(logits_BK: Tensor) -> Tensor:
    """Make the zero that stands for a loss that is switched off or has nothing to compare yet.

    Returns:
        A scalar in the type the losses have, without gradient: added to a sum it changes no bit.
    """
    dtype = torch.float64 if logits_BK.dtype == torch.float64 else torch.float32
    return torch.zeros((), dtype=dtype, device=logits_BK.device)
