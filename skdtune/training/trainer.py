"""The epoch loop: one trial, from its configuration to a curve of validation accuracies.

The trainer knows no method by name and no trial: it adds up the losses that the terms return,
and tells a reporter what each epoch brought.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import textwrap
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from skdtune.data.batches import Batch, DeviceImages, TrainBatches, val_batches
from skdtune.data.plans import build_plan
from skdtune.describe.config import TrialConfig
from skdtune.describe.epoch_report import EpochReport, Reporter, Verdict
from skdtune.errors import CheckpointError, NonFiniteLossError
from skdtune.methods.base import BuildContext, Step, Term
from skdtune.methods.catalogue import build_terms, required_stages
from skdtune.models.backbone import Backbone, ImageClassifier, build_backbone, require_as_stored
from skdtune.models.description import describe_network
from skdtune.models.pretrained import load_weights, weights_at_hand
from skdtune.training.compilation import compile_mode, compile_network
from skdtune.training.device import arithmetic_on, autocast, autocast_dtype
from skdtune.training.optimizer import Schedule, build_optimizer, set_lr
from skdtune.training.random_states import random_states, set_random_states
from skdtune.training.scoring import (
    MeanProfile,
    Measurement,
    Observe,
    Scores,
    measure,
    score,
)

#: What the names of the network's tensors begin with in a state, since the first release.
_PREFIX = "backbone."


class Interrupted(Exception):
    """The training was left between two steps, at the reporter's wish."""


class Trainer:
    """One training: network, terms, optimiser and data of one trial.

    Weights come from the seed alone, the network's before the terms', so that two methods with
    one seed start from the same network. The order and augmentation of an epoch come from
    (seed, epoch).

    Args:
        config: The trial's full configuration.
        train: Training images on the device.
        val: Validation images on the device; None for a training that nothing is chosen by.
        num_classes: Number of classes.
        device: Where to train.
    """

    def __init__(
        self,
        config: TrialConfig,
        train: DeviceImages,
        val: DeviceImages | None,
        num_classes: int,
        device: torch.device,
    ) -> None:
        self.config = config
        self.device = device
        self.dtype = autocast_dtype(config.model, device)
        self._val = val
        self._num_classes = num_classes
        plan = build_plan(config.method, train.labels_N, config.data.batch_size)
        self._batches = TrainBatches(train, config.data, config.seed, plan)
        self._image_shape = train.image_shape
        self.network, self.terms = build_modules(
            config, self._image_shape, num_classes, device, num_train=len(train)
        )
        compile_network(self.network, compile_mode())
        self._stages = required_stages(self.terms)
        self._optimizer = build_optimizer(config.optimizer, self.network, self.terms)
        self._schedule = Schedule(config.optimizer, config.budget.epochs, len(self._batches))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return len(self._batches)

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch trains on, all views and companions counted."""
        return self._batches.images_per_epoch

    def layer_work(self) -> float:
        """Return the multiply-adds of a layer in one step, the mean over the network's layers."""
        described = describe_network(
            self.network, self._image_shape, has_maps=self.config.model.has_maps
        )
        return described.layer_multiply_adds * self.images_per_epoch / self.steps_per_epoch

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on after a finished epoch: tensors and plain data.

        The schedule is a function of the step, order and augmentation are functions of seed and
        epoch: they need nothing. The tensors are the training's own: write them down, or copy
        them, before it goes on.
        """
        return {
            "network": self.network.state_dict(prefix=_PREFIX),
            "terms": self.terms.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": random_states(self.device),
            "arithmetic": dataclasses.asdict(arithmetic_on(self.device, self.dtype)),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to a state; on the CPU the training then goes on bit by bit as it would have.

        Raises:
            CheckpointError: If the state is of another training. This one is unusable then.
            torch.OutOfMemoryError: If the device is full.
        """
        try:
            network = {name.removeprefix(_PREFIX): v for name, v in state["network"].items()}
            self.network.load_state_dict(network)
            self.terms.load_state_dict(state["terms"])
            # A copy, because the optimiser would train on in the tensors it was given.
            self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
            set_random_states(state["random"], self.device)
        except torch.OutOfMemoryError:
            # It says nothing against the state, which the next attempt may need.
            raise
        except Exception as error:
            reason = textwrap.shorten(str(error), 200, placeholder=" ...")
            raise CheckpointError(
                f"the state does not fit this training: {type(error).__name__}: {reason}"
            ) from error

    def run(self, reporter: Reporter, *, first_epoch: int = 0) -> Verdict:
        """Train to the last epoch, or until the reporter prunes or interrupts.

        Args:
            reporter: Takes note of each epoch.
            first_epoch: Where to begin; the number of epochs that a loaded state has behind it.

        Returns:
            CONTINUE after the last epoch, PRUNE or INTERRUPT if the reporter ended it.

        Raises:
            NonFiniteLossError: If a training loss became NaN or infinite.
        """
        try:
            for epoch in range(first_epoch, self.config.budget.epochs):
                verdict = reporter.epoch_finished(self._run_epoch(epoch, reporter))
                if verdict is not Verdict.CONTINUE:
                    return verdict
        except Interrupted:
            return Verdict.INTERRUPT
        return Verdict.CONTINUE

    def measure(self, images: DeviceImages, observe: Observe | None = None) -> Measurement:
        """Return accuracy and loss on images that were not learned from.

        Args:
            images: Images on the device.
            observe: Shown the logits ``[B, K]`` and labels ``[B]`` of every batch.
        """
        batches = val_batches(images)
        classifier = ImageClassifier(self.network)
        return measure(classifier, batches, self.dtype, self.device, observe)

    def score(self, images: DeviceImages) -> Scores:
        """Return all scores, calibration included, on images that were not learned from.

        Args:
            images: Images on the device.
        """
        batches = val_batches(images)
        classifier = ImageClassifier(self.network)
        return score(classifier, batches, self.dtype, self.device, self._num_classes)

    def validate(self) -> Measurement | None:
        """Return accuracy and loss on the validation images, None without such images."""
        return None if self._val is None else self.measure(self._val)

    def _run_epoch(self, epoch: int, reporter: Reporter) -> EpochReport:
        start = time.perf_counter()
        losses = self._train_epoch(epoch, reporter)
        measured: Measurement | None = None
        more: dict[str, Any] = {}
        if self._val is not None and epoch + 1 == self.config.budget.epochs:
            measured = scores = self.score(self._val)
            rest = {"top5": scores.top5, "ece": scores.ece, "nll": scores.nll}
            more = {"scores": rest, "profile": scores.profile}
        elif self._val is not None and epoch == 0:
            profile = MeanProfile()
            measured = self.measure(self._val, profile.add)
            more = {"profile": profile.values}
        elif self._val is not None:
            measured = self.measure(self._val)
        if measured is not None:
            more |= {"val_accuracy": measured.accuracy, "val_loss": measured.loss}
        return EpochReport(
            epoch=epoch,
            losses=losses,
            lr=self._schedule.lr((epoch + 1) * len(self._batches) - 1),
            seconds=time.perf_counter() - start,
            images=self.images_per_epoch,
            **more,
        )

    def _train_epoch(self, epoch: int, reporter: Reporter) -> dict[str, float]:
        self.network.train()
        self.terms.train()
        for term in self._terms():
            term.start_epoch(epoch)
        sums: dict[str, Tensor] = {}
        step = epoch * len(self._batches)
        for done, batch in enumerate(self._batches.epoch(epoch)):
            if reporter.interrupted(done / len(self._batches)):
                raise Interrupted
            set_lr(self._optimizer, self._schedule.lr(step))
            for name, loss in self._train_step(batch, epoch).items():
                value = loss.detach()
                sums[name] = sums[name] + value if name in sums else value
            step += 1
        # The only synchronisation of the epoch that is the trainer's own.
        means = {name: value.item() / len(self._batches) for name, value in sums.items()}
        wrong = [name for name, mean in means.items() if not math.isfinite(mean)]
        if wrong:
            raise NonFiniteLossError(
                f"the loss {' and '.join(wrong)} became non-finite in epoch {epoch + 1}"
            )
        return means

    def _train_step(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        label_weight = math.prod(term.label_weight_of(batch) for term in self._terms())
        with autocast(self.dtype, self.device):
            outputs = self.network(batch.images_BCHW, self._stages)
            step = Step(
                batch=batch,
                logits_BK=outputs.logits_BK,
                stage_features=outputs.stage_features,
                pooled_BC=outputs.pooled_BC,
                network=self.network,
                epoch=epoch,
                planned_epochs=self.config.budget.epochs,
                label_weight=label_weight,
            )
            losses = {name: loss for term in self._terms() for name, loss in term(step).items()}
        total = torch.stack(list(losses.values())).sum()
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return losses

    def _terms(self) -> Iterable[Term]:
        return (term for term in self.terms.values() if isinstance(term, Term))


def build_modules(
    config: TrialConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    device: torch.device,
    *,
    num_train: int = 0,
) -> tuple[Backbone, nn.ModuleDict]:
    """Build the network and the terms of a trial from its seed, on a device.

    The global random generator is left as it was.

    Args:
        config: The trial's full configuration.
        image_shape: Channels, height and width of an image.
        num_classes: Number of classes.
        device: Where the modules go.
        num_train: Number of training images, for terms that remember something of each.
    """
    model = config.model
    require_as_stored(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_backbone(
            model.name,
            width=model.width,
            in_channels=image_shape[0],
            image_size=image_shape[1:],
            num_classes=num_classes,
            stem=model.stem,
        )
        if (weights := weights_at_hand(config)) is not None:
            load_weights(network, weights, model.name)
        shapes = describe_network(network, image_shape, has_maps=model.has_maps).stage_shapes
        context = BuildContext(shapes, num_classes, num_train, model)
        terms = build_terms(config.method, context)
    for module in (network, terms):
        module.to(device).to(memory_format=torch.channels_last)
    return network, terms
