"""SGD and its learning-rate schedule, from the configuration of a trial."""

from __future__ import annotations

import math

import torch
from torch import nn

from skdtune.describe.config import OptimizerConfig


def build_optimizer(
    config: OptimizerConfig, network: nn.Module, terms: nn.Module
) -> torch.optim.SGD:
    """Build SGD over the network and over the auxiliary modules, in two parameter groups.

    Both groups have the same learning rate and weight decay, which applies to all parameters, as
    in the published recipe.
    """
    groups = [
        {"params": list(module.parameters())}
        for module in (network, terms)
        if any(True for _ in module.parameters())
    ]
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
        # One pass over each parameter, its gradient and its momentum instead of four.
        fused=True,
    )


class Schedule:
    """The learning rate of every step.

    The warm-up rises step by step; ``multistep`` drops at the start of an epoch, ``cosine`` falls
    step by step to zero at the end of the planned epochs.

    Args:
        config: Optimiser settings.
        epochs: Planned epochs.
        steps_per_epoch: Steps of one epoch.
    """

    def __init__(self, config: OptimizerConfig, epochs: int, steps_per_epoch: int) -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._num_steps = epochs * steps_per_epoch
        self._warmup_steps = round(config.warmup_epochs * steps_per_epoch)
        self._drop_epochs = config.drop_epochs(epochs)

    def lr(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0 over the whole training."""
        if step < self._warmup_steps:
            return self._config.lr * ((step + 1) / self._warmup_steps)
        if self._config.schedule == "cosine":
            after = (step - self._warmup_steps) / (self._num_steps - self._warmup_steps)
            return self._config.lr * 0.5 * (1 + math.cos(math.pi * after))
        epoch = step // self._steps_per_epoch
        drops = sum(epoch >= drop for drop in self._drop_epochs)
        return self._config.lr * self._config.gamma**drops


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
