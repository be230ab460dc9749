"""What every term of a method is, and what it gets to see.

A method is a list of terms. The trainer knows none of them by name: it taps the stages they ask
for, calls each with the :class:`Step`, adds up all the losses they return and saves their state
dicts. To add a method, add a settings class, a file with one :class:`Term`, and one line in
``registry.py``.

Tensor shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skdtune.models.taps import StageShape


@dataclass(frozen=True)
class Step:
    """One training step as the terms see it."""

    labels_B: Tensor
    """Class indices of the batch, int64."""

    logits_BK: Tensor
    """Logits of the final classifier, in any floating-point type."""

    stage_features: dict[int, Tensor]
    """Outputs ``[B, C_s, H_s, W_s]`` of the tapped stages, counted from 1."""

    epoch: int
    """The epoch, counted from 0."""


@dataclass(frozen=True)
class BuildContext:
    """What a term may need to know of the network when it is built."""

    stage_shapes: tuple[StageShape, ...]
    """Shapes of all stages of the backbone, first to last."""

    num_classes: int
    """Number of classes K."""


class Term(nn.Module):
    """One or more named losses, with whatever modules and memory they need.

    All that must survive a checkpoint lies in the state dict: parameters, buffers, and
    ``get_extra_state`` for the rest. A term draws no random numbers after it was built. The
    modules of a term are trained with the backbone and thrown away after training.
    """

    stages: tuple[int, ...] = ()
    """Stages whose outputs the term reads, counted from 1."""

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
